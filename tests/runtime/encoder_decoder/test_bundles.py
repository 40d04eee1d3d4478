"""Encoder-decoder bundles: quantized, shown, and verified again."""

from __future__ import annotations

import json

import pytest

from tests.helpers.bundles import read_manifest_json, write_manifest
from tests.helpers.commands import one_line
from tests.runtime.encoder_decoder.test_commands import TEXTS
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.opening import load_encoder_decoder


@pytest.fixture(scope="module", params=["int8", "int4"])
def quantized(request, exported_family, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized") / request.param
    export(str(exported_family("t5")[0]), folder, ExportOptions(quantize=request.param))
    return request.param, folder


def test_quantized_bundles_run_and_say_so(call, quantized, t5):
    name, folder = quantized
    manifest = json.loads((folder / "manifest.json").read_text())
    bits = {"int8": 8, "int4": 4}[name]
    for graph in ("encoder", "decoder"):
        stored = manifest["graphs"][graph]["quantization"]
        assert (stored["scheme"], stored["bits"]) == (name, bits)
        assert stored["matrices"] > 0
    assert manifest["graphs"]["decoder"]["quantization"]["block_size"] == {"int8": 128, "int4": 32}[name]
    measured = manifest["export"]["parity"]["quantized"]
    # Random weights forgive little; but graphs that had nothing to do with each other would agree on one in hundreds.
    assert measured["top1_agreement"] > 20 / manifest["vocab_size"]
    # Six sources, 32 tokens each, of which all but the first are predicted.
    assert measured["tokens"] == 6 * 31
    weights = {size: sum(path.stat().st_size for path in size.glob("*.onnx*")) for size in (folder, t5)}
    assert weights[folder] < weights[t5]
    model, options = load_encoder_decoder(folder), GenerationOptions(max_new_tokens=7)
    for beams in (Beams(), Beams(num_beams=3)):
        found = list(model.generate_all(TEXTS, options, beams=beams, batch=3))
        assert [best.token_ids for (best, *_) in found] == [
            model.generate(text, options, beams=beams).token_ids for text in TEXTS
        ]
    code, out, _ = call("inspect", folder)
    assert (code, f"{name}: " in out) == (0, True)


def test_inspect(call, t5):
    code, out, err = call("inspect", t5)
    assert (code, err) == (0, "")
    for text in ("encoder-decoder", "text2text-generation", "graph encoder", "graph decoder", "cross_key_values.0.key"):
        assert text in out
    described = json.loads(call("inspect", t5, "--json")[1])["encoder_decoder"]
    assert (described["source"], described["max_source_length"]) == ("text", 90)
    assert set(described["tasks"]) == {"summarization", "translation_en_to_de", "translation_en_to_fr"}


def test_verify_again(call, exported_family, quantized, t5, checkpoint):
    source = exported_family("t5")[0]
    assert call("verify", t5)[0] == 0
    code, out, _ = call("verify", t5, "--against", source, "--json")
    parity = json.loads(out)["parity"]
    assert code == 0
    assert max(parity[way] for way in ("prefill", "chunked", "step", "ragged")) <= parity["tolerance"]
    assert parity["quantized"] is None
    _, folder = quantized
    code, out, _ = call("verify", folder, "--against", source, "--json")
    measured = json.loads(out)["parity"]["quantized"]
    # The float graphs are PyTorch's equal, so comparing with PyTorch says what comparing with them said.
    recorded = json.loads((folder / "manifest.json").read_text())["export"]["parity"]["quantized"]
    assert code == 0
    assert measured["tokens"] == recorded["tokens"]
    assert measured["mean_kl"] == pytest.approx(recorded["mean_kl"], rel=0.02, abs=1e-4)
    code, _, err = call("verify", t5, "--against", checkpoint)
    assert code == 1
    assert "it is another architecture" in one_line(err)


def test_a_changed_file_is_found(call, t5, tmp_path):
    for path in t5.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    graph = bytearray((tmp_path / "encoder.onnx").read_bytes())
    graph[len(graph) // 2] ^= 1
    (tmp_path / "encoder.onnx").write_bytes(graph)
    code, _, err = call("verify", tmp_path)
    assert code == 1
    assert "encoder.onnx" in one_line(err)


def test_a_task_of_a_damaged_manifest(call, t5, tmp_path):
    for path in t5.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    manifest = read_manifest_json(tmp_path)
    for value, message in (("many", "num_beams"), (0, "generation.num_beams must be at least 1, not 0")):
        manifest["encoder_decoder"]["tasks"]["summarization"]["generation"]["num_beams"] = value
        write_manifest(tmp_path, manifest)
        code, _, err = call("summarize", tmp_path, "a")
        assert code == 1
        assert message in one_line(err)
