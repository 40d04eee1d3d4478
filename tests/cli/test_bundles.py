"""Bundles that are missing, damaged or hostile end in one line; inspect and verify tell what is there."""

from __future__ import annotations

import json

import pytest

from tests.helpers.bundles import adopt, change, read_manifest_json, write_manifest
from triform.cli.main import run
from triform.runtime.bundle.reading import read_manifest


def fails(capsys, *arguments, code=1):
    found = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert found == code
    return captured.err


def test_missing_empty_or_not_a_bundle(capsys, tmp_path, checkpoint):
    assert "does not exist" in fails(capsys, "generate", tmp_path / "none", "x")
    (tmp_path / "empty").mkdir()
    assert "not a bundle" in fails(capsys, "generate", tmp_path / "empty", "x")
    assert "not a bundle" in fails(capsys, "inspect", checkpoint)
    assert "is a file" in fails(capsys, "verify", checkpoint / "config.json")


def test_manifest_not_json(capsys, own_bundle):
    (own_bundle / "manifest.json").write_text("{")
    assert "not valid JSON" in fails(capsys, "inspect", own_bundle)
    (own_bundle / "manifest.json").write_text("[]")
    assert "JSON object" in fails(capsys, "inspect", own_bundle)
    (own_bundle / "manifest.json").write_bytes(b"\xff\xfe\x00")
    assert "manifest.json" in fails(capsys, "inspect", own_bundle)


def test_manifest_of_another_schema(capsys, own_bundle):
    change(own_bundle, schema_version=9)
    assert "a newer Triform; this one reads versions 2 to 8: upgrade" in fails(capsys, "inspect", own_bundle)
    change(own_bundle, schema_version=1)
    older = "an older Triform; this one reads versions 2 to 8: export the model again"
    assert older in fails(capsys, "inspect", own_bundle)


KEYS = (
    "schema_version", "triform_version", "form", "task", "model_type", "model_name", "graphs", "cache", "max_length",
    "vocab_size", "parameters", "tokens", "generation", "tokenizer", "files", "export",
    "encoder", "encoder_decoder",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_manifest_without_a_key(capsys, own_bundle, key):
    content = read_manifest_json(own_bundle)
    # Absent in bundles of earlier versions: `target` and `gpu`.
    assert set(content) == {*KEYS, "manifest_sha256", "target", "gpu"}
    del content[key]
    write_manifest(own_bundle, content)
    assert f"the key {key} is missing" in fails(capsys, "generate", own_bundle, "x")


def test_manifest_with_a_wrong_type(capsys, own_bundle):
    change(own_bundle, max_length="long")
    assert "max_length must be a int" in fails(capsys, "inspect", own_bundle)


def test_unknown_keys_are_ignored(own_bundle):
    change(own_bundle, something_new={"a": 1})
    assert read_manifest(own_bundle).form == "decoder"


@pytest.mark.parametrize("name", ["tokenizer.json", "decoder.onnx", "decoder.onnx.data", "chat_template.jinja"])
def test_a_missing_file(capsys, own_bundle, name):
    (own_bundle / name).unlink()
    assert f"{name} is missing" in fails(capsys, "generate", own_bundle, "x")


@pytest.mark.parametrize("name", ["decoder.onnx", "decoder.onnx.data"])
def test_a_truncated_file(capsys, own_bundle, name):
    path = own_bundle / name
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{name} is damaged" in fails(capsys, "generate", own_bundle, "x")


@pytest.mark.parametrize("name", ["decoder.onnx", "decoder.onnx.data", "tokenizer.json"])
def test_a_flipped_bit_is_found_by_verify(capsys, own_bundle, name):
    path = own_bundle / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    assert f"{name} is damaged: its SHA-256 differs" in fails(capsys, "verify", own_bundle)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x0a" * 50])
def test_a_graph_that_is_none(capsys, own_bundle, content):
    adopt(own_bundle, "decoder.onnx", content)
    assert "decoder.onnx cannot be opened" in fails(capsys, "generate", own_bundle, "x")


def test_a_graph_cut_short(capsys, own_bundle):
    adopt(own_bundle, "decoder.onnx", (own_bundle / "decoder.onnx").read_bytes()[:-500])
    assert "decoder.onnx cannot be opened" in fails(capsys, "generate", own_bundle, "x")


def test_data_cut_short(capsys, own_bundle):
    adopt(own_bundle, "decoder.onnx.data", b"\x00" * 100)
    assert "cannot be opened" in fails(capsys, "generate", own_bundle, "x")


def test_a_tokenizer_that_is_none(capsys, own_bundle):
    adopt(own_bundle, "tokenizer.json", b"{}")
    assert "cannot be read as a tokenizer" in fails(capsys, "generate", own_bundle, "x")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "C:\\x", "..", ""])
def test_names_that_leave_the_bundle_are_refused(capsys, own_bundle, name):
    files = read_manifest_json(own_bundle)["files"]
    change(own_bundle, files={**files, name: {"size": 1, "sha256": "0" * 64}})
    assert "unsafe" in fails(capsys, "generate", own_bundle, "x")


def test_symbolic_links_are_refused(capsys, own_bundle, tmp_path):
    (own_bundle / "tokenizer.json").rename(tmp_path / "elsewhere.json")
    (own_bundle / "tokenizer.json").symlink_to(tmp_path / "elsewhere.json")
    assert "symbolic link" in fails(capsys, "generate", own_bundle, "x")


def test_external_data_outside_the_bundle_is_refused(capsys, own_bundle, tmp_path):
    """onnxruntime itself refuses a location that leaves the model's folder; this holds it to that."""
    secret = tmp_path / "decoder.onnx.data"
    secret.write_bytes((own_bundle / "decoder.onnx.data").read_bytes())
    graph = (own_bundle / "decoder.onnx").read_bytes()
    inside, outside = b"decoder.onnx.data", b"../decoder.on.data"
    assert inside in graph
    outside = b"../coder.onnx.dat"
    assert len(inside) == len(outside)
    (tmp_path / "coder.onnx.dat").write_bytes(secret.read_bytes())
    adopt(own_bundle, "decoder.onnx", graph.replace(inside, outside))
    assert "cannot be opened" in fails(capsys, "generate", own_bundle, "x")


def test_another_form_is_refused(capsys, own_bundle):
    change(own_bundle, form="diffusion")
    assert "not of the form 'decoder'" in fails(capsys, "generate", own_bundle, "x")
    change(own_bundle, form="encoder")
    assert "graphs must be ['encoder'], not ['decoder']" in fails(capsys, "generate", own_bundle, "x")


def test_inspect_shows_the_bundle(capsys, int4_bundle):
    assert run(["inspect", str(int4_bundle)]) == 0
    out = capsys.readouterr().out
    for text in ("decoder", "text-generation", "llama", "GroupQueryAttention", "int4", "input_ids int64", "perplexity"):
        assert text in out
    assert run(["inspect", str(int4_bundle), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((int4_bundle / "manifest.json").read_text())


def test_verify_and_verify_against(capsys, float_bundle, int4_bundle, checkpoint):
    assert run(["verify", str(float_bundle), "--against", str(checkpoint), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "decoder.onnx" in found["files"]
    assert found["parity"]["prefill"] <= found["parity"]["tolerance"]
    assert run(["verify", str(int4_bundle), "--against", str(checkpoint), "--json"]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["parity"]["quantized"]["top1_agreement"] <= 1


def test_verify_against_another_model(capsys, float_bundle, tmp_path):
    from tests.checkpoints.decoders import llama_folder

    other = llama_folder(tmp_path / "other", vocab_size=410)
    assert "another architecture" in fails(capsys, "verify", float_bundle, "--against", other)
