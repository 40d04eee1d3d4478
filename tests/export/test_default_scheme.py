"""`--quantize auto`: which scheme a checkpoint gets, and what the user is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import BertConfig, Gemma3Config, LlamaConfig, Qwen2Config, T5Config

from triform.cli.main import run
from triform.export.checkpoint.source import Source
from triform.export.default_scheme import choose_scheme
from triform.export.options import ExportOptions

FOLDER = Path("model")
SOURCE = Source("model", FOLDER, FOLDER, FOLDER)
# The hidden sizes of SmolLM2-135M and 360M, Qwen2.5-0.5B, Gemma 3 1B (in its part that reads text) and Llama 3.2 1B.
SIZES = [
    ("decoder", LlamaConfig(hidden_size=576), "int8"),
    ("decoder", LlamaConfig(hidden_size=960), "int8"),
    ("decoder", Qwen2Config(hidden_size=896), "int8"),
    ("decoder", Gemma3Config(text_config={"hidden_size": 1152}), "int4"),
    ("decoder", LlamaConfig(hidden_size=2048), "int4"),
    ("encoder", BertConfig(hidden_size=4096), "int8"),
    ("encoder-decoder", T5Config(d_model=4096), "int8"),
]


@pytest.mark.parametrize(("form", "config", "scheme"), SIZES)
def test_the_size_decides(form, config, scheme):
    assert choose_scheme(form, SOURCE, config, ExportOptions()).name == scheme


@pytest.mark.parametrize("scheme", ["none", "int8", "int4", "keep"])
def test_what_the_user_names_stays(scheme):
    chosen = choose_scheme("decoder", SOURCE, LlamaConfig(hidden_size=2048), ExportOptions(quantize=scheme))
    assert (chosen.name, chosen.because) == (scheme, "`quantize`")


def test_a_plan_says_why(checkpoint, call):
    code, out, _ = call("export", str(checkpoint), "unused", "--dry-run", "--json")
    assert code == 0
    rows = json.loads(out)
    assert rows["weights"].startswith("8 bit")
    assert rows["weights decided by"].startswith("the hidden size 96: ")
    assert rows["decided by"] != rows["weights decided by"]


def test_a_scheme_that_nobody_knows(checkpoint, tmp_path, capsys):
    assert run(["export", str(checkpoint), str(tmp_path / "out"), "--quantize", "int5"]) == 2
    message = "--quantize must be auto, none, int8, int4 or keep, not int5"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
