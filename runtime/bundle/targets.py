"""The targets of a bundle: graphs for the CPU, for GPUs, or both."""

from __future__ import annotations

import dataclasses

from triform.runtime.bundle.manifest import Manifest


def has_gpu(manifest: Manifest) -> bool:
    """Whether a bundle has graphs for GPUs."""
    return manifest.target == "gpu" or manifest.gpu is not None


def for_gpu(manifest: Manifest) -> Manifest:
    """The manifest as if the bundle had its graphs for GPUs only; unchanged if there are none, or no others."""
    gpu = manifest.gpu
    if gpu is None:
        return manifest
    cache = None if manifest.cache is None else dataclasses.replace(manifest.cache, dtype=gpu.dtype)
    return dataclasses.replace(manifest, target="gpu", graphs=gpu.graphs, cache=cache, gpu=None)


def manifests(manifest: Manifest) -> list[Manifest]:
    """The manifest as if the bundle had one target only, for each of its targets."""
    first = dataclasses.replace(manifest, gpu=None)
    return [first] if manifest.gpu is None else [first, for_gpu(manifest)]


def needs_gpu(manifest: Manifest) -> bool:
    """Whether the CPU can run no graph of a bundle: ONNX Runtime has no kernels for bfloat16 there."""
    graphs = manifest.graphs.values()
    return manifest.target == "gpu" and any(graph.notes.get("dtype") == "bfloat16" for graph in graphs)
