"""Copies of graphs that are prepared for this machine: used while nothing has changed, and with the same outputs."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import triform
from triform.export import ExportOptions, export
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.errors import BundleError, TriformError, UnsupportedError
from triform.runtime.graphs import preparation, session
from triform.runtime.graphs.preparation import prepare, unprepare
from triform.runtime.machine import prepared_graphs
from triform.runtime.machine.prepared_graphs import prepared_graph, prepared_places, record_prepared

GREEDY = triform.GenerationOptions(max_new_tokens=8, temperature=0)


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Where copies are."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "triform" / "prepared"


@pytest.fixture
def opened(monkeypatch):
    """The graphs that are opened, in order."""
    paths, create = [], session._create

    def noted(ort, path, *rest):
        paths.append(path)
        return create(ort, path, *rest)

    monkeypatch.setattr(session, "_create", noted)
    return paths


def answer(bundle):
    """What a decoder says, and the logits of a text."""
    model = triform.load_decoder(bundle)
    return model.generate("Some words", GREEDY).text, model.logits("Some other words").tobytes()


def test_a_decoder_in_blocks(int4_bundle, place, opened):
    expected = answer(int4_bundle)
    done = prepare(int4_bundle)
    (folder,) = done.folders
    files = list((place / folder).iterdir())
    assert {file.name for file in files} == {"decoder.onnx", "decoder.onnx.data", "prepared.json"}
    assert done.size == sum(file.stat().st_size for file in files)
    opened.clear()
    assert answer(int4_bundle) == expected
    assert opened == [place / folder / "decoder.onnx"]
    assert unprepare(int4_bundle) == done.size
    assert list(place.iterdir()) == []
    opened.clear()
    assert answer(int4_bundle) == expected
    assert opened == [int4_bundle / "decoder.onnx"]


def test_a_decoder_with_packed_weights(checkpoint, tmp_path):
    export(str(checkpoint), tmp_path / "bundle", ExportOptions(target_bits=6.5))
    assert (tmp_path / "bundle" / "decoder.onnx.packed").exists()
    expected = answer(tmp_path / "bundle")
    prepare(tmp_path / "bundle")
    assert answer(tmp_path / "bundle") == expected


def test_an_encoder(sentence_bundle, opened):
    texts = ["A text.", "Another text, which is longer."]
    expected = triform.load_encoder(sentence_bundle).embed(texts)
    (folder,) = prepare(sentence_bundle).folders
    opened.clear()
    assert np.array_equal(triform.load_encoder(sentence_bundle).embed(texts), expected)
    assert [str(path.parent) for path in opened] == [folder]


@pytest.mark.parametrize("family", ["t5", "whisper", "moonshine"])
def test_both_graphs_of_an_encoder_decoder(exported_family, opened, family):
    _, bundle = exported_family(family)
    folders = prepare(bundle).folders
    assert len(folders) == 2
    opened.clear()
    triform.load(bundle)
    assert [str(path.parent) for path in opened] == folders


@pytest.mark.parametrize("changed", ["decoder.onnx", "decoder.onnx.data"])
def test_a_bundle_that_was_written_is_not_the_one_that_was_prepared(own_bundle, opened, changed):
    prepare(own_bundle)
    os.utime(own_bundle / changed)
    opened.clear()
    answer(own_bundle)
    assert opened == [own_bundle / "decoder.onnx"]


@pytest.mark.parametrize("changed", ["decoder.onnx", "decoder.onnx.data", "prepared.json"])
@pytest.mark.parametrize(
    "change", [os.utime, os.remove, lambda path: path.write_bytes(b"[1]")], ids=["touched", "removed", "damaged"]
)
def test_a_copy_that_was_written_is_not_used(own_bundle, opened, changed, change):
    (folder,) = prepare(own_bundle).folders
    expected = answer(own_bundle)
    path = Path(folder) / changed
    change(path)
    opened.clear()
    assert answer(own_bundle) == expected
    # Of the record only the content counts.
    as_before = (changed, change) == ("prepared.json", os.utime)
    assert opened == [path.parent / "decoder.onnx" if as_before else own_bundle / "decoder.onnx"]


def test_a_copy_that_cannot_be_opened_is_not_used(own_bundle, opened):
    (folder,) = prepare(own_bundle).folders
    copy = Path(folder)
    (copy / "decoder.onnx").write_bytes(b"no graph")
    (copy / "prepared.json").unlink()
    record_prepared(copy, own_bundle)
    opened.clear()
    answer(own_bundle)
    assert opened == [copy / "decoder.onnx", own_bundle / "decoder.onnx"]


def test_copies_are_for_one_version_and_one_processor(own_bundle, monkeypatch):
    import onnxruntime as ort

    prepare(own_bundle)
    graph = own_bundle / "decoder.onnx"
    assert prepared_graph(graph, ort.__version__) is not None
    assert prepared_graph(graph, f"{ort.__version__}.1") is None
    monkeypatch.setattr(prepared_graphs, "processor_kind", lambda: "model: another")
    assert prepared_graph(graph, ort.__version__) is None


def test_copies_go_with_what_they_were_made_of(own_bundle, int4_bundle, place, tmp_path):
    prepare(int4_bundle)
    prepare(own_bundle)
    os.utime(own_bundle / "decoder.onnx")
    # The copy of the bundle as it was is of no use any more.
    prepare(own_bundle)
    assert len(list(place.iterdir())) == 2
    (place / "of another program").mkdir()
    assert len(list(prepared_places(own_bundle))) == 1
    own_bundle.rename(tmp_path / "renamed")
    # A bundle that is not there any more.
    assert unprepare(int4_bundle) > 0
    assert [path.name for path in place.iterdir()] == ["of another program"]


def test_a_copy_with_other_outputs_is_refused(own_bundle, place, monkeypatch):
    opening = preparation.open_session

    class Other:
        def __init__(self, path, **options):
            self.session, self.prepared = opening(path, **options), any(place.iterdir())

        def __getattr__(self, name):
            return getattr(self.session, name)

        def run(self, names, feeds):
            outputs = self.session.run(names, feeds)
            return [outputs[0] + np.float32(1e-3) * self.prepared, *outputs[1:]]

    monkeypatch.setattr(preparation, "open_session", Other)
    with pytest.raises(TriformError, match="gives other outputs when it is prepared"):
        prepare(own_bundle)
    assert list(place.iterdir()) == []


def test_nothing_half_written_stays(own_bundle, place, monkeypatch):
    def fail(*_, **__):
        raise BundleError("no space")

    monkeypatch.setattr(session, "_open_as_it_is", lambda ort, path, settings: fail())
    monkeypatch.setattr(preparation, "open_session", lambda path, **_: StandIn())
    with pytest.raises(TriformError, match=r"a copy of .*decoder\.onnx cannot be written into .*prepared; it needs"):
        prepare(own_bundle)
    assert list(place.iterdir()) == []


class StandIn:
    def get_inputs(self):
        return []

    def run(self, names, feeds):
        return []


class Failing(StandIn):
    def run(self, names, feeds):
        raise RuntimeError("no input is good enough")


def test_a_graph_that_made_up_inputs_do_not_suit(own_bundle, place, monkeypatch):
    monkeypatch.setattr(preparation, "open_session", lambda path, **_: Failing())
    with pytest.raises(UnsupportedError, match=r"decoder\.onnx cannot be prepared: no made-up input suits it"):
        prepare(own_bundle)
    assert list(place.iterdir()) == []


def test_systems_that_have_no_place_or_tell_no_processor(own_bundle, monkeypatch):
    monkeypatch.setattr(prepared_graphs, "processor_kind", lambda: None)
    with pytest.raises(UnsupportedError, match="on Linux only"):
        prepare(own_bundle)
    monkeypatch.setattr(prepared_graphs, "cache_folder", lambda: None)
    with pytest.raises(UnsupportedError, match="set XDG_CACHE_HOME"):
        prepare(own_bundle)
    assert unprepare(own_bundle) == 0


def test_a_damaged_bundle_is_not_prepared(own_bundle, place):
    data = own_bundle / "decoder.onnx.data"
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="damaged"):
        prepare(own_bundle)
    assert not place.exists()


def test_a_bundle_for_gpus_is_not_prepared(own_bundle, place, monkeypatch):
    bundle = open_bundle(own_bundle)
    for_gpus = replace(bundle, manifest=replace(bundle.manifest, target="gpu"))
    monkeypatch.setattr(preparation, "open_bundle", lambda path: for_gpus)
    with pytest.raises(UnsupportedError, match="is made for GPUs"):
        prepare(own_bundle)
    assert not place.exists()


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (("input_ids", "int64", ["batch", "sequence"]), [[0, 1, 0]]),
        (("attention_mask", "int64", ["batch", "sequence"]), [[1, 1, 1]]),
        (("token_type_ids", "int64", ["batch", "sequence"]), [[0, 0, 0]]),
        # All tokens are new, and there are none before them.
        (("new_lengths", "int32", ["batch"]), [3]),
        (("past_lengths", "int32", ["batch"]), [0]),
        (("logits_positions", "int64", ["batch", "num_logits"]), [[0]]),
        (("sizes", "int64", [2, "other"]), [[0, 0, 0]] * 2),
    ],
)
def test_inputs_that_are_made_up(node, expected):
    name, kind, shape = node
    found = preparation._made_up(SimpleNamespace(name=name, type=f"tensor({kind})", shape=shape), 3)
    assert found.tolist() == expected and found.dtype == kind


def test_made_up_pixels_differ():
    found = preparation._made_up(
        SimpleNamespace(name="pixels", type="tensor(float)", shape=["batch", 3, 4, "width"]), 5
    )
    assert (found.shape, found.dtype) == ((1, 3, 4, 5), np.float32) and len(np.unique(found)) > 50
