"""Whether a checkpoint can be that of a bundle, by its vocabulary and by what this machine can run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import LlamaConfig, MarianConfig

from triform.export.recheck.against import _check_runs_here as check_runs_here
from triform.export.recheck.against import _same_vocabulary as same_vocabulary
from triform.runtime.errors import ExportError


def manifest(vocab_size, form="decoder", tokenizer="given"):
    return SimpleNamespace(vocab_size=vocab_size, form=form, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("config", "held", "expected"),
    [
        (LlamaConfig(vocab_size=40), manifest(40), True), (LlamaConfig(vocab_size=40), manifest(41), False),
        # A bundle that reads no texts has no vocabulary.
        (LlamaConfig(vocab_size=40), manifest(0, tokenizer=None), True),
        # What an encoder-decoder writes counts.
        (MarianConfig(vocab_size=50, decoder_vocab_size=60), manifest(60, "encoder-decoder"), True),
        (MarianConfig(vocab_size=50, decoder_vocab_size=60), manifest(50, "encoder-decoder"), False),
    ],
)  # fmt: skip
def test_vocabularies(config, held, expected):
    assert same_vocabulary(config, held) == expected


def test_a_config_that_gives_no_number():
    config = SimpleNamespace(get_text_config=lambda decoder=None: SimpleNamespace())
    assert same_vocabulary(config, manifest(7))
    asked = []
    config = SimpleNamespace(
        get_text_config=lambda decoder=None: asked.append(decoder) or SimpleNamespace(vocab_size=8)
    )
    assert not same_vocabulary(config, manifest(7)) and same_vocabulary(config, manifest(8, "encoder-decoder"))
    assert asked == [None, True]


@pytest.mark.parametrize("dtype", [None, "float32", "float16", "bfloat16"])
def test_graphs_that_only_a_gpu_runs(dtype):
    cache = None if dtype is None else SimpleNamespace(dtype=dtype)
    bundle = SimpleNamespace(manifest=SimpleNamespace(cache=cache), graph=lambda name: (f"{name}.onnx", None))
    if dtype != "bfloat16":
        check_runs_here(bundle)
        return
    with pytest.raises(ExportError, match=r"^decoder\.onnx computes with bfloat16, which the CPU cannot run, and so"):
        check_runs_here(bundle)
