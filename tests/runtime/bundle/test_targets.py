"""Which graphs a bundle has for which processor: a manifest for both is one for each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from triform.runtime.bundle.manifest import GpuGraphs, Manifest
from triform.runtime.bundle.reading import _check_references
from triform.runtime.bundle.targets import for_gpu, has_gpu, manifests, needs_gpu
from triform.runtime.checked_json import Mismatch, build

FOLDER = Path(__file__).parent / "manifests"


def manifest(name="decoder"):
    return build(Manifest, json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def graphs_of(own, file, **notes):
    return {name: replace(graph, file=file, notes=notes) for name, graph in own.graphs.items()}


def test_a_bundle_for_the_cpu():
    own = manifest()
    assert own.target == "cpu" and own.gpu is None
    assert not has_gpu(own) and not needs_gpu(own)
    assert for_gpu(own) is own and manifests(own) == [own]


@pytest.mark.parametrize(("dtype", "needs"), [("float16", False), ("bfloat16", True)])
def test_a_bundle_for_gpus(dtype, needs):
    own = manifest()
    alone = replace(own, target="gpu", graphs=graphs_of(own, "gpu.onnx", dtype=dtype))
    assert has_gpu(alone) and needs_gpu(alone) is needs
    assert for_gpu(alone) is alone and manifests(alone) == [alone]
    # On a CPU the same graphs' note says nothing.
    assert not needs_gpu(replace(alone, target="cpu"))


@pytest.mark.parametrize("name", ["decoder", "embed"])
def test_a_bundle_for_both_is_one_for_each(name):
    own = manifest(name)
    gpu = GpuGraphs(graphs=graphs_of(own, "gpu.onnx", dtype="bfloat16"), dtype="bfloat16")
    both = replace(own, gpu=gpu)
    assert has_gpu(both) and not needs_gpu(both)
    first, second = manifests(both)
    assert first == own and second == for_gpu(both)
    assert (second.target, second.gpu, second.graphs) == ("gpu", None, gpu.graphs)
    assert has_gpu(second) and needs_gpu(second)
    assert second.cache == (None if own.cache is None else replace(own.cache, dtype="bfloat16"))
    # Nothing else differs.
    assert replace(second, target=own.target, graphs=own.graphs, cache=own.cache) == own


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({}, None),
        ({"graphs": "absent.onnx"}, "graphs.decoder.file"),
        ({"gpu": "absent.onnx"}, "gpu.graphs.decoder.file"),
        ({"tokenizer": "absent.onnx"}, "tokenizer.file"),
    ],
)
def test_files_that_are_not_listed_are_named_with_their_key(changes, key):
    own, files = manifest(), {"graphs": "decoder.onnx", "gpu": "gpu.onnx", "tokenizer": "tokenizer.json", **changes}
    listed = dict.fromkeys(("decoder.onnx", "gpu.onnx", "tokenizer.json"), next(iter(own.files.values())))
    whole = replace(
        own,
        files=listed,
        graphs={name: replace(graph, file=files["graphs"], data=None) for name, graph in own.graphs.items()},
        gpu=GpuGraphs(
            dtype="float16",
            graphs={name: replace(graph, file=files["gpu"], data=None) for name, graph in own.graphs.items()},
        ),
        tokenizer=replace(own.tokenizer, file=files["tokenizer"], chat_template=None, chat_templates={}),
    )
    if key is None:
        _check_references(whole)
        return
    with pytest.raises(Mismatch, match=f"^{key} names 'absent.onnx', which files does not list$"):
        _check_references(whole)
