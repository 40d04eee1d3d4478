"""Which class runs a bundle, and what each loader refuses: with written manifests, and stand-ins for the classes."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from triform.runtime import opening
from triform.runtime.bundle.manifest import GpuGraphs, Manifest
from triform.runtime.checked_json import build
from triform.runtime.errors import ProviderError, TriformError, UnsupportedError

MANIFESTS = Path(__file__).parent / "bundle" / "manifests"
CLASSES = {
    "Decoder": "triform.runtime.decoder.model.Decoder",
    "Encoder": "triform.runtime.encoder.model.Encoder",
    "EncoderDecoder": "triform.runtime.encoder_decoder.model.EncoderDecoder",
    "SpeechModel": "triform.runtime.speech.model.SpeechModel",
    "CtcModel": "triform.runtime.speech.model.CtcModel",
}
LOADERS = {
    name: getattr(opening, name)
    for name in ("load", "load_decoder", "load_encoder", "load_encoder_decoder", "load_speech")
}


def manifest(name):
    return build(Manifest, json.loads((MANIFESTS / f"{name}.json").read_text(encoding="utf-8")))


class CtcInfo:
    """Stands for how logits are read."""


@pytest.fixture
def opened(monkeypatch):
    """Opens a manifest, and says what was made of it."""
    made = SimpleNamespace(checked=[])

    def stand_in(name):
        def init(self, bundle, **options):
            made.kind, made.bundle, made.options = name, bundle, options

        return type(name, (), {"__init__": init})

    for name, path in CLASSES.items():
        monkeypatch.setattr(path, stand_in(name))

    def use(described):
        bundle = SimpleNamespace(folder="folder", manifest=described)
        monkeypatch.setattr(opening, "open_bundle", lambda path: bundle)
        monkeypatch.setattr(opening, "check_files", lambda bundle, verify: made.checked.append(verify))
        monkeypatch.setattr(opening, "replace", lambda one, **changes: SimpleNamespace(**{**vars(one), **changes})
                            if one is bundle else replace(one, **changes))  # fmt: skip
        return made

    return use


def described(kind):
    if kind == "ctc":
        own = manifest("classify")
        encoder = replace(own.encoder, ctc=CtcInfo())
        return replace(own, task="automatic-speech-recognition", encoder=encoder)
    return manifest(kind)


@pytest.mark.parametrize(
    ("kind", "name", "loaders"),
    [
        ("decoder", "Decoder", {"load", "load_decoder"}),
        ("embed", "Encoder", {"load", "load_encoder"}),
        ("vit", "Encoder", {"load", "load_encoder"}),
        ("ctc", "CtcModel", {"load", "load_speech"}),
        ("bart", "EncoderDecoder", {"load", "load_encoder_decoder"}),
        ("whisper", "SpeechModel", {"load", "load_encoder_decoder", "load_speech"}),
    ],
)
@pytest.mark.parametrize("loader", LOADERS)
def test_what_loads_what(opened, kind, name, loaders, loader):
    made = opened(described(kind))
    if loader in loaders:
        LOADERS[loader]("path", threads=3, verify="always")
        assert made.kind == name and made.checked == ["always"]
        assert made.options["threads"] == 3
        return
    with pytest.raises(TriformError):
        LOADERS[loader]("path")
    assert not hasattr(made, "kind")


def test_defaults_of_loaders(opened):
    made = opened(described("decoder"))
    for loader in (opening.load, opening.load_decoder):
        loader("path")
        assert made.options == {"shared": False}
        loader("path", shared=True)
        assert made.options == {"shared": True}
    made = opened(described("embed"))
    opening.load_encoder("path")
    assert made.options == {"strict": False}
    opening.load_encoder("path", strict=True)
    assert made.options == {"strict": True}
    made = opened(described("bart"))
    opening.load_encoder_decoder("path")
    assert made.options == {"strict": False}
    opening.load_encoder_decoder("path", strict=True)
    assert made.options == {"strict": True}
    assert set(made.checked) == {"once"}


def test_a_form_of_another_version(opened):
    opened(replace(described("decoder"), form="diffusion"))
    with pytest.raises(
        UnsupportedError, match=r"^path is of the form 'diffusion', which this version does not run: upg"
    ):
        opening.load("path")


def both(dtype="float16"):
    own = manifest("decoder")
    graphs = {name: replace(graph, file="gpu.onnx", notes={"dtype": dtype}) for name, graph in own.graphs.items()}
    return replace(own, gpu=GpuGraphs(dtype, graphs))


def gpu_alone(dtype="float16"):
    one = both(dtype)
    return replace(one, target="gpu", graphs=one.gpu.graphs, gpu=None)


@pytest.mark.parametrize("found", [None, "cuda"])
def test_auto_takes_a_gpu_where_there_are_graphs_and_a_provider_for_it(opened, monkeypatch, found):
    monkeypatch.setattr(opening, "gpu_provider", lambda: found)
    made = opened(both())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opening.load("path")
    assert made.options["provider"] == (found or "cpu")
    assert (made.bundle.manifest.target, made.bundle.manifest.gpu) == ("cpu" if found is None else "gpu", None)
    # Whoever names the CPU gets it.
    opening.load("path", provider="CPUExecutionProvider")
    assert made.bundle.manifest.target == "cpu" and made.options["provider"] == "CPUExecutionProvider"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_graphs_for_gpus_alone_where_there_is_none(opened, monkeypatch, dtype):
    monkeypatch.setattr(opening, "gpu_provider", lambda: None)
    made = opened(gpu_alone(dtype))
    for options in ({}, {"provider": "cpu"}):
        if dtype == "bfloat16":
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                with pytest.raises(ProviderError, match=r"^folder computes with bfloat16, which needs a GPU"):
                    opening.load("path", **options)
        elif options:
            opening.load("path", **options)
            assert made.options["provider"] == "cpu"
        else:
            with pytest.warns(UserWarning, match="path is made for GPUs and none can be used here"):
                opening.load("path")
            assert made.options["provider"] == "cpu"
