"""Exports of small encoder-decoders to a goal: it is met over both graphs, measured, or refused in one line."""

from __future__ import annotations

import json
import math

import onnx
import pytest

from triform import load
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.errors import InputError

TABLE = "model.lm_head.weight"


@pytest.fixture(scope="module")
def small(exported_family, tmp_path_factory):
    """Smaller than 6 bits a weight, which neither 4 bits nor 8 bits in every matrix would fill."""
    folder = tmp_path_factory.mktemp("goal") / "bundle"
    return folder, export(str(exported_family("bart")[0]), folder, ExportOptions(target_bits=6.0))


def quantization(folder):
    graphs = json.loads((folder / "manifest.json").read_text())["graphs"]
    return {name: graphs[name]["quantization"] for name in ("encoder", "decoder")}


def test_the_manifest_says_how_each_matrix_of_both_graphs_is_stored(small):
    folder, report = small
    stored = quantization(folder)
    for of_graph in stored.values():
        assert of_graph["scheme"] == report.scheme == "mixed"
        assert len(of_graph["products"]) == of_graph["matrices"] == sum(of_graph["formats"].values())
    assert len(set(stored["encoder"]["products"].values()) | set(stored["decoder"]["products"].values())) > 1


def test_what_both_graphs_read_is_stored_alike_and_once(small):
    folder, _ = small
    encoder, decoder = (of_graph["products"] for of_graph in quantization(folder).values())
    assert encoder[TABLE] == decoder[TABLE]
    assert encoder.keys() & decoder.keys() == {TABLE}
    files = {place for name, place in places(folder, "decoder").items() if name.startswith(TABLE) and "blocks" in name}
    assert files == {"encoder.onnx.data"}


def places(folder, graph):
    """The file that holds each large constant of a graph."""
    model = onnx.load(folder / f"{graph}.onnx", load_external_data=False)
    found = {
        item.name: {entry.key: entry.value for entry in item.external_data}["location"]
        for item in model.graph.initializer
        if item.external_data
    }
    packed = folder / f"{graph}.onnx.packed"
    listed = json.loads(packed.read_text()) if packed.exists() else {}
    return found | {name: item["file"] for name, item in listed.items()}


def test_a_bundle_is_no_larger_than_what_was_chosen(small):
    folder, report = small
    chosen = next(point for point in report.frontier if point.chosen)
    assert 5.0 < chosen.bits <= 6.0
    assert report.size_after == sum(file.stat().st_size for file in folder.iterdir())
    assert report.size_after <= chosen.size


def test_the_estimate_is_near_what_is_measured(small):
    """Errors of several matrices and tokens add up, and 8-bit activations are not in it, so that it is no bound."""
    _, report = small
    chosen = next(point for point in report.frontier if point.chosen)
    assert chosen.damage / 3 < report.parity.quantized.mean_kl < 3 * chosen.damage


def test_the_bundle_answers(small):
    folder, _ = small
    assert load(folder).generate("The evening train was late.").text


def test_a_loss_is_kept_and_measured(exported_family, tmp_path):
    report = export(str(exported_family("bart")[0]), tmp_path / "bundle", ExportOptions(max_loss=0.001))
    divergence = report.parity.quantized.mean_kl
    assert math.expm1(divergence) <= 0.001
    measured = [note for note in report.notes if note.startswith("measured: ")]
    assert any(f"KL {divergence:.4f}" in note for note in measured)
    # A smaller one loses more.
    assert any(point.loss is not None and point.loss > 0.001 for point in report.frontier)


def test_a_target_that_is_too_small_is_refused(exported_family, tmp_path):
    with pytest.raises(InputError, match=r"`target_bits` is too small: this model takes at least \d\.\d\d"):
        export(str(exported_family("bart")[0]), tmp_path / "bundle", ExportOptions(target_bits=2.0))
    assert list(tmp_path.iterdir()) == []
