"""`triform batch --cluster`; what needs Ray is run by `make cluster-check`."""

from __future__ import annotations

import socket
import sys

import pytest

from tests.helpers.batches import errors_in, rows_in, sentences, write_json_lines, write_parquet
from tests.helpers.commands import one_line
from tests.helpers.ray_cluster import start_cluster


def batch(call, bundle, tmp_path, *arguments):
    return call("batch", "embed", bundle, "--output", tmp_path / "out", *arguments)


@pytest.fixture
def source(tmp_path):
    return write_parquet(tmp_path / "a.parquet", sentences(3))


@pytest.fixture(scope="module")
def address():
    """The address of a cluster of two nodes."""
    cluster, _ = start_cluster(2)
    yield cluster.address
    cluster.shutdown()


def test_a_cluster_that_is_not_there(call, sentence_bundle, source, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    for address, message in (
        (f"127.0.0.1:{free}", f"--cluster 127.0.0.1:{free}: nothing answers there"),
        ("ray://127.0.0.1:99999", "nothing answers there"),
        ("somewhere", "--cluster must be auto, local or HOST:PORT, not 'somewhere'"),
    ):
        code, _, err = batch(call, sentence_bundle, tmp_path, "--input", source, "--cluster", address)
        assert code == 2 and message in one_line(err)
    assert not (tmp_path / "out").exists()


def test_without_ray(call, sentence_bundle, source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = batch(call, sentence_bundle, tmp_path, "--input", source, "--cluster", "auto")
    assert code == 1
    assert one_line(err).startswith("error: clusters need ray[data]: ")


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_the_rows_are_those_of_one_machine(call, address, sentence_bundle, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_parquet(folder / "a.parquet", [*sentences(300), None], group=100)
    write_json_lines(folder / "b.jsonl", [{"text": text} for text in sentences(70)])
    common = ("batch", "embed", sentence_bundle, "--input", folder, "--block-rows", 32)
    code, _, err = call(*common, "--output", tmp_path / "cluster", "--cluster", address)
    assert code == 0 and "371 rows computed, 371 in " in err
    call(*common, "--output", tmp_path / "plain", "--threads", 1)
    assert rows_in(tmp_path / "cluster") == rows_in(tmp_path / "plain")
    assert errors_in(tmp_path / "cluster") == [("a.parquet", 300, "it is null")]


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_what_a_worker_raises_is_one_line(call, address, sentence_bundle, source, tmp_path):
    asked = ("--input", source, "--cluster", address, "--dimensions", 4096)
    code, _, err = batch(call, sentence_bundle, tmp_path, *asked)
    assert code == 2
    assert "--dimensions must be between 1 and the model's 48" in one_line(err)
    code, _, err = batch(call, sentence_bundle, tmp_path, "--input", source, "--cluster", address, "--provider", "cuda")
    assert code == 2 and "runs models on CPUs only" in one_line(err)


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore")
def test_a_bundle_is_copied_to_a_machine_that_lacks_it(address, sentence_bundle, tmp_path):
    import dataclasses

    from triform.cli.batch.cluster import cluster
    from triform.cli.batch.shared_bundle import share

    def files(folder):
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    with cluster(address):
        bundle = share(sentence_bundle)
        assert bundle.here(tmp_path) == sentence_bundle.absolute()
        elsewhere = dataclasses.replace(bundle, folder=tmp_path / "nowhere")
        copy = elsewhere.here(tmp_path)
        assert copy.parent == tmp_path and files(copy) == files(sentence_bundle)
        assert elsewhere.here(tmp_path) == copy
