"""`triform export` from the outside: sources that are none, targets that exist, exports that are cut short."""

from __future__ import annotations

import gc
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.checkpoints.decoders import llama_folder
from tests.cli.test_generate import hear_ctrl_c
from triform.cli.commands.bundle.export_extra import compiled_elsewhere, kept_for_good
from triform.cli.main import run
from triform.export.write import staged
from triform.runtime.errors import ExportError
from triform.runtime.extras import install_command


def fails(capsys, *arguments, code=1):
    found = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    last = captured.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert found == code
    return last


@pytest.fixture
def own_checkpoint(checkpoint, tmp_path):
    return Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [("/nowhere", "new", "/nowhere does not exist"), ("org/name", "there", "there exists; use --force to replace it")],
)
def test_wrong_paths_are_refused_before_the_imports_that_take_seconds(source, target, reason, tmp_path):
    (tmp_path / "there").mkdir()
    code = (
        "import sys; from triform.cli.main import run; "
        f"code = run(['export', {source!r}, {target!r}]); sys.exit(3 if 'torch' in sys.modules else code)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"error: {reason}")


def test_sources_that_are_none(capsys, tmp_path):
    target = tmp_path / "out"
    assert "does not exist" in fails(capsys, "export", tmp_path / "none", target)
    (tmp_path / "empty").mkdir()
    assert "is empty" in fails(capsys, "export", tmp_path / "empty", target)
    (tmp_path / "empty" / "readme.txt").write_text("hello")
    assert "no config.json" in fails(capsys, "export", tmp_path / "empty", target)
    assert "not a GGUF file" in fails(capsys, "export", tmp_path / "empty" / "readme.txt", target)
    (tmp_path / "fake.gguf").write_text("hello")
    assert "does not begin with the bytes GGUF" in fails(capsys, "export", tmp_path / "fake.gguf", target)
    (tmp_path / "short.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    assert "ends in the middle of its header" in fails(capsys, "export", tmp_path / "short.gguf", target)
    assert list(tmp_path.glob("*out*")) == []


def test_a_config_that_is_none(capsys, own_checkpoint, tmp_path):
    (own_checkpoint / "config.json").write_text("{")
    assert "config" in fails(capsys, "export", own_checkpoint, tmp_path / "out")


def test_what_is_no_pickle_of_tensors(capsys, own_checkpoint, tmp_path):
    (own_checkpoint / "model.safetensors").rename(own_checkpoint / "pytorch_model.bin")
    line = fails(capsys, "export", own_checkpoint, tmp_path / "out")
    assert "pytorch_model.bin is damaged, or not a file of weights" in line


def test_truncated_weights(capsys, own_checkpoint, tmp_path):
    path = own_checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "model.safetensors cannot be read" in fails(capsys, "export", own_checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_that_are_missing(capsys, own_checkpoint, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = load_file(own_checkpoint / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, own_checkpoint / "model.safetensors", {"format": "pt"})
    line = fails(capsys, "export", own_checkpoint, tmp_path / "out")
    assert "lacks 1 weights" in line
    assert "layers.1.mlp.up_proj" in line


def test_a_missing_tokenizer(capsys, own_checkpoint, tmp_path):
    for path in own_checkpoint.glob("tokenizer*"):
        path.unlink()
    assert "tokenizer" in fails(capsys, "export", own_checkpoint, tmp_path / "out")


def test_unsupported_model_types_name_the_nearest(capsys, tmp_path):
    from transformers import RwkvConfig, Wav2Vec2Config, xLSTMConfig

    speaker = Wav2Vec2Config(architectures=["Wav2Vec2ForXVector"])
    nearest = "models carry a state along the text by a recurrence that is not supported; the nearest that are: "
    cases = (
        (xLSTMConfig(), f"xlstm {nearest}"),
        (RwkvConfig(), f"rwkv {nearest}"),
        (speaker, "Wav2Vec2ForXVector is for speaker verification"),
    )
    for config, expected in cases:
        folder = tmp_path / config.model_type
        config.save_pretrained(folder)
        assert expected in fails(capsys, "export", folder, tmp_path / "out", "--dry-run")


def test_a_model_without_a_limit_needs_a_context_length(capsys, tmp_path):
    from transformers import BloomConfig, XLNetConfig

    for config in (BloomConfig(), XLNetConfig(architectures=["XLNetLMHeadModel"])):
        folder = tmp_path / config.model_type
        config.save_pretrained(folder)
        assert "give one with --context-length" in fails(capsys, "export", folder, tmp_path / "out", "--dry-run")


def test_a_plan_names_options_as_the_command_line_does(checkpoint, tmp_path, capsys):
    assert run(["export", str(checkpoint), str(tmp_path / "out"), "--dry-run", "--target-size", "9MB"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines if "decided" in line][-1] == ["weights", "decided", "by", "--target-size"]


def test_dry_run_prints_the_plan_and_writes_nothing(capsys, checkpoint, tmp_path):
    assert run(["export", str(checkpoint), str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["model type"], plan["layers"], plan["hidden size"], plan["vocabulary"]) == ("llama", "3", "96", "400")
    assert (plan["task"], plan["decided by"]) == ("text-generation", "the class name LlamaForCausalLM")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--quantize", "int3"], "--quantize must be"),
        (["--block-size", "48"], "--block-size must be"),
        (["--accuracy-level", "9"], "--accuracy-level must be"),
        (["--context-length", "5"], "--context-length must be"),
        (["--context-length", "100000"], "more than the model's own limit of 640"),
    ],
)
def test_bad_options(capsys, checkpoint, tmp_path, arguments, text):
    assert text in fails(capsys, "export", checkpoint, tmp_path / "out", *arguments, code=2)


def test_an_existing_target_needs_force_and_must_be_a_bundle(capsys, checkpoint, own_bundle, tmp_path):
    before = (own_bundle / "manifest.json").read_bytes()
    assert "use --force" in fails(capsys, "export", checkpoint, own_bundle)
    assert (own_bundle / "manifest.json").read_bytes() == before
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    assert "not a bundle" in fails(capsys, "export", checkpoint, precious, "--force")
    assert (precious / "thesis.txt").read_text() == "years of work"


def test_force_replaces_a_bundle(capsys, checkpoint, own_bundle):
    assert run(["export", str(checkpoint), str(own_bundle), "--force", "--quantize", "int8", "--json"]) == 0
    captured = capsys.readouterr()
    events = [json.loads(line) for line in captured.err.splitlines()]
    begun = [event["step"] for event in events if event["total"] is None]
    assert begun == ["load", "reference", "trace", "fuse", "verify", "quantize", "compare", "write"]
    assert all(event["done"] < event["total"] for event in events if event["total"] is not None)
    report = json.loads(captured.out)
    manifest = json.loads((own_bundle / "manifest.json").read_text())
    assert manifest["graphs"]["decoder"]["quantization"]["bits"] == 8
    assert report["parity"] == manifest["export"]["parity"]
    assert report["size_after"] == sum(path.stat().st_size for path in own_bundle.iterdir())
    assert [path.name for path in own_bundle.parent.iterdir()] == ["bundle"]


def test_the_report_for_people(capsys, checkpoint, tmp_path):
    assert run(["export", str(checkpoint), str(tmp_path / "out"), "--quantize", "none"]) == 0
    shown = dict(line.split("  ", 1) for line in capsys.readouterr().out.splitlines())
    size = sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert f"{size / 1e6:.1f} MB" in shown["bundle"]
    weights = (checkpoint / "model.safetensors").stat().st_size
    assert f"{weights / 1e6:.1f} MB" in shown["weights before"]
    assert {"load", "trace", "verify", "write", "total", "parity, prefill", "allowed"} <= set(map(str.strip, shown))


def test_a_full_disk_leaves_nothing(capsys, checkpoint, tmp_path, monkeypatch):
    from triform.export.forms import decoder

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(decoder, "save_tokenizer", full)
    target = tmp_path / "place" / "out"
    assert "No space left on device" in fails(capsys, "export", checkpoint, target)
    assert list((tmp_path / "place").iterdir()) == []


def test_an_export_that_is_killed_leaves_no_bundle(checkpoint, tmp_path):
    target = tmp_path / "out"
    command = [sys.executable, "-m", "triform", "export", str(checkpoint), str(target)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if line.startswith("verify"):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not target.exists()
    (left,) = tmp_path.iterdir()
    with staged(target, force=False) as folder:
        assert not left.exists()
        (folder / "manifest.json").touch()
    assert os.listdir(tmp_path) == ["out"]


def test_of_two_exports_to_one_target_the_later_says_so(tmp_path):
    target = tmp_path / "out"
    with pytest.raises(ExportError, match="was made by another process meanwhile"), staged(target, force=False):
        with staged(target, force=False) as first:
            (first / "manifest.json").write_text("the first")
    assert (target / "manifest.json").read_text() == "the first"
    assert os.listdir(tmp_path) == ["out"]


def test_force_replaces_what_appears_meanwhile_and_keeps_none_of_its_files(tmp_path):
    target = tmp_path / "out"
    target.mkdir()
    (target / "manifest.json").touch()
    with staged(target, force=True) as second:
        (second / "manifest.json").write_text("the second")
        with staged(target, force=True) as first:
            (first / "manifest.json").write_text("the first")
            (first / "more").touch()
    assert os.listdir(target) == ["manifest.json"]
    assert (target / "manifest.json").read_text() == "the second"
    assert os.listdir(tmp_path) == ["out"]


def test_an_export_that_is_interrupted_cleans_up(checkpoint, tmp_path):
    target = tmp_path / "out"
    command = [sys.executable, "-m", "triform", "export", str(checkpoint), str(target)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=hear_ctrl_c)
    for line in process.stderr:
        if line.startswith("verify"):
            break
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert os.listdir(tmp_path) == []


def test_missing_export_packages_are_named(capsys, checkpoint, tmp_path, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else real(name, *rest))
    error = fails(capsys, "export", checkpoint, tmp_path / "out")
    assert f"exporting needs PyTorch: {install_command('export')}" in error


def test_what_is_newer_than_it_was_tested_is_named(capsys, checkpoint, tmp_path, monkeypatch):
    torch = importlib.metadata.version("torch")
    monkeypatch.setattr(
        "triform.export.tested_versions.read_tested_versions", lambda: {"torch": "2.1.0", "gguf": "99.0"}
    )
    assert run(["export", str(checkpoint), str(tmp_path / "out"), "--quantize", "none", "--json"]) == 0
    out, err = capsys.readouterr()
    note = f"note: newer than the versions that this release was tested with: torch {torch} (tested with 2.1.0)"
    assert [line for line in err.splitlines() if line.startswith("note: ")] == [note]
    newer = {"torch": {"installed": torch, "tested": "2.1.0"}}
    assert json.loads(out)["newer_than_tested"] == newer
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["export"]["newer_than_tested"] == newer
    assert run(["inspect", str(tmp_path / "out")]) == 0
    assert re.search(r"^tested with +torch 2\.1\.0 only$", capsys.readouterr().out, re.MULTILINE)


def test_the_note_comes_before_a_failure_that_it_may_explain(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("triform.export.tested_versions.read_tested_versions", lambda: {"torch": "2.1.0"})
    assert run(["export", str(tmp_path / "none"), str(tmp_path / "out")]) == 1
    note, *_, error = capsys.readouterr().err.splitlines()
    assert note.startswith("note: newer than the versions that this release was tested with: torch ")
    assert error.startswith("error: ")


def test_a_graph_that_differs_from_pytorch_fails(capsys, tmp_path, monkeypatch):
    from triform.export.forms.decoders import floats

    real = floats.reference_logits
    monkeypatch.setattr(floats, "reference_logits", lambda *arguments: real(*arguments) * 1.01)
    folder = llama_folder(tmp_path / "model")
    assert "does not compute what PyTorch does" in fails(capsys, "export", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_context_too_short_to_verify_is_refused(capsys, tmp_path):
    folder = llama_folder(tmp_path / "model", max_position_embeddings=8)
    assert "reads 8 tokens at most" in fails(capsys, "export", folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_stays_in_the_folder_for_temporary_files(checkpoint, tmp_path):
    """PyTorch makes a folder there when it is imported, which is why this is another process."""
    command = [sys.executable, "-m", "triform", "export", checkpoint, tmp_path / "bundle", "--dry-run"]
    (tmp_path / "temporary").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    environment.pop("TORCHINDUCTOR_CACHE_DIR", None)
    subprocess.run(command, env=environment, capture_output=True, check=True)
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_folder_for_what_is_compiled_that_the_user_names_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    with compiled_elsewhere():
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path) and tmp_path.is_dir()


@pytest.mark.parametrize("imported", [False, True])
def test_garbage_is_looked_for_in_what_comes_after_the_imports(monkeypatch, imported):
    if not imported:
        monkeypatch.delitem(sys.modules, "torch", raising=False)
    before = gc.get_freeze_count()
    try:
        with kept_for_good():
            assert gc.isenabled() == imported
        assert gc.isenabled()
        assert (gc.get_freeze_count() > before) != imported
    finally:
        gc.unfreeze()


def test_a_failed_import_leaves_the_collector_on(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    before = gc.get_freeze_count()
    with pytest.raises(ImportError), kept_for_good():
        raise ImportError
    assert gc.isenabled()
    assert gc.get_freeze_count() == before
