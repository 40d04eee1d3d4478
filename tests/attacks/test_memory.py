"""Running out of memory: one line, whichever library notices it."""

from __future__ import annotations

import builtins
import errno
import sys

import numpy as np
import pytest

import triform
from tests.helpers.commands import one_line
from triform.cli.main import run
from triform.export import pipeline
from triform.export.options import ExportOptions
from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo
from triform.runtime.decoder import chat_template
from triform.runtime.decoder.chat_template import render_chat
from triform.runtime.decoder.templates.isolation import isolated
from triform.runtime.errors import InputError, OutOfMemoryError, is_out_of_memory
from triform.runtime.graphs import session as sessions
from triform.runtime.graphs.cache import KVCache
from triform.runtime.graphs.decoding import step as decoder_step
from triform.runtime.machine import memory
from triform.runtime.media.audio import require_audio

SAID = [
    "std::bad_alloc",
    "[ONNXRuntimeError] : 1 : FAIL : Failed to allocate memory for requested buffer of size 1073741824",
    "libarrow.so.2100: failed to map segment from shared object",
    "bfc_arena.cc:376 AllocateRawInternal",
    "array is too big; `arr.size * arr.dtype.itemsize` is larger than the maximum possible size.",
    "Maximum allowed dimension exceeded",
    "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
]
ERRORS = [*map(RuntimeError, SAID), MemoryError(), OSError(errno.ENOMEM, "Cannot allocate memory")]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
def test_what_libraries_say(error):
    assert is_out_of_memory(error)
    assert isinstance(sessions.run_failure("decoder", error), OutOfMemoryError)
    wrapped = triform.ExportError("the weights cannot be loaded")
    wrapped.__cause__ = error
    assert is_out_of_memory(wrapped)


def test_what_else_fails():
    for error in (RuntimeError("bad node"), ValueError("memory"), triform.InputError("Unable to allocate")):
        assert not is_out_of_memory(error)
    assert not isinstance(sessions.run_failure("decoder", RuntimeError("bad node")), OutOfMemoryError)


def test_opening_a_graph(float_bundle, monkeypatch):
    def create(*arguments):
        raise RuntimeError("std::bad_alloc")

    monkeypatch.setattr(sessions, "_create", create)
    with pytest.raises(OutOfMemoryError, match=r"decoder\.onnx does not fit into memory"):
        triform.load(float_bundle)


@pytest.mark.parametrize("error", ERRORS[: len(SAID)], ids=repr)
def test_an_export(checkpoint, tmp_path, monkeypatch, error):
    def opened(*arguments, **options):
        raise error

    monkeypatch.setattr(pipeline, "_opened", opened)
    with pytest.raises(OutOfMemoryError, match="does not fit into memory"):
        pipeline.export(checkpoint, tmp_path / "out", ExportOptions())


@pytest.mark.parametrize("what", ["address_space_left", "available_memory"])
def test_pytorch_is_not_loaded_where_it_does_not_fit(capsys, monkeypatch, tmp_path, what):
    """It would end the process."""
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(memory, what, lambda: 3 * 10**8)
    assert run(["export", str(tmp_path), str(tmp_path / "out")]) == 1
    err = one_line(capsys.readouterr().err)
    assert err.startswith("error: PyTorch and transformers do not fit into memory: they take ")
    assert "300 MB are left" in err
    assert "torch" not in sys.modules


UNMAPPED = "libx.so: failed to map segment from shared object"


@pytest.mark.parametrize("isolate", [False, True])
def test_what_renders_templates_cannot_be_loaded(monkeypatch, isolate):
    def render(source, variables):
        raise ImportError(UNMAPPED)

    monkeypatch.setattr(chat_template, "renderer", lambda engine: isolated("unmapped", render) if isolate else render)
    with pytest.raises(OutOfMemoryError, match="what renders the chat template does not fit into memory"):
        render_chat("{{ 1 }}", [{"role": "user", "content": "a"}], {})
    # What a template says of memory is its own.
    with pytest.raises(InputError, match="the chat template refuses these messages: out of memory"):
        monkeypatch.undo()
        render_chat("{{ raise_exception('out of memory') }}", [{"role": "user", "content": "a"}], {})


def test_libsndfile_cannot_be_loaded(monkeypatch):
    def fail(name, *arguments, **keywords):
        if name == "soundfile":
            raise OSError(f"cannot load library 'x': {UNMAPPED}")
        return original(name, *arguments, **keywords)

    original = builtins.__import__
    monkeypatch.delitem(sys.modules, "soundfile", raising=False)
    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(OutOfMemoryError, match="libsndfile does not fit into memory"):
        require_audio()


def test_more_rows_than_any_machine_holds():
    cache = KVCache(CacheInfo("float32", [LayerCacheInfo(1, 8)]), 64)
    with pytest.raises(triform.InputError, match="a cache of 1000000000 rows does not fit into memory"):
        cache.resize(10**9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_not_numbers(float_bundle, monkeypatch, value):
    real = decoder_step._append

    def append(*arguments):
        step = real(*arguments)
        step.logits[0, -1, 3] = value
        return step

    monkeypatch.setattr(decoder_step, "_append", append)
    model = triform.load_decoder(float_bundle)
    for call in (model.logits, model.perplexity, model.score):
        with pytest.raises(triform.BundleError, match="not numbers"):
            call("a text of a few tokens")


@pytest.mark.parametrize(
    "options",
    [
        ["--temperature", "1e308"],
        ["--repetition-penalty", "1e308"],
        ["--repetition-penalty", "1e-310"],
        ["--frequency-penalty", "1e308"],
        ["--max-new-tokens", "99999999999999999999"],
        ["--batch", "0"],
        ["--batch", "3"],
        ["--prompt-cache", "/nope/x"],
    ],
)
def test_options_that_cannot_be_kept_are_refused_before_anything_runs(capsys, float_bundle, options):
    assert run(["generate", str(float_bundle), "a", *options]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert (captured.out, line.startswith("error: ")) == ("", True)
    assert options[0] in line or options[1] in line
