"""Ranges of the values that describe graphs: tensors, quantization, the cache, and the export's measurements."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import fields
from typing import get_args

from triform.runtime.bundle.export_record import EncoderParity, ExportInfo, Parity
from triform.runtime.bundle.limits.contract import Limit, one_of, within
from triform.runtime.bundle.manifest import SCHEMES, BundleTarget, CacheInfo, GpuDtype, GraphInfo, StateInfo

_MOST_LAYERS = 10_000
# Values of all heads of a layer for one token.
_WIDEST_STATE = 2**20
# Values of a state of fixed size, and its axes.
_LARGEST_STATE, _MOST_AXES = 2**28, 3
# Perplexities of random weights are large; no other measurement is larger.
_LARGEST_MEASURED = 1e15
# Cosines and shares.
_RANGES: dict[str, tuple[float, float]] = {
    "top1_agreement": (0, 1),
    "cosine_mean": (-1.001, 1.001),
    "cosine_worst": (-1.001, 1.001),
}


def graph_limits(key: str, info: GraphInfo) -> Iterator[Limit]:
    """Yield the rules for the graph that the manifest has under `key`."""
    for part in ("inputs", "outputs"):
        for index, tensor in enumerate(getattr(info, part)):
            for axis, size in enumerate(tensor.shape):
                if isinstance(size, int):
                    yield within(f"{key}.{part}[{index}].shape[{axis}]", size, 1)
    for operator, count in info.operators.items():
        yield within(f"{key}.operators.{operator}", count, 1)
    stored = info.quantization
    yield one_of(f"{key}.quantization.scheme", stored.scheme, SCHEMES)
    yield within(f"{key}.quantization.bits", stored.bits, 1, 32)
    yield within(f"{key}.quantization.block_size", stored.block_size, 1)
    yield within(f"{key}.quantization.sensitive_block_size", stored.sensitive_block_size, 1)
    yield within(f"{key}.quantization.accuracy_level", stored.accuracy_level, 0, 4)
    yield within(f"{key}.quantization.matrices", stored.matrices, 0)


def cache_limits(cache: CacheInfo, target: BundleTarget) -> Iterator[Limit]:
    """Yield the rules for a decoder's key/value buffers and states."""
    yield one_of("cache.dtype", cache.dtype, ("float32",) if target == "cpu" else get_args(GpuDtype))
    yield Limit("cache.states", len(cache.states), target == "cpu" or not cache.states, "empty for GPUs")
    own = cache.growth == "in_place"
    yield Limit("cache.growth", cache.growth, own or (target == "cpu" and not cache.states), "in_place for this model")
    yield Limit("cache.uneven", cache.uneven, cache.uneven or not own, "true where a cache grows in place")
    yield Limit("cache.single", cache.single, not (cache.single and own), "false where a cache grows in place")
    count = len(cache.layers) + len(cache.states)
    yield Limit("cache.layers", f"{count} layers", 1 <= count <= _MOST_LAYERS, f"1 to {_MOST_LAYERS} layers")
    for index, layer in enumerate(cache.layers):
        for name in ("num_key_value_heads", "head_dim"):
            yield within(f"cache.layers[{index}].{name}", getattr(layer, name), 1, _WIDEST_STATE)
    for index, state in enumerate(cache.states):
        yield from _state_limits(f"cache.states[{index}]", state)


def _state_limits(key: str, state: StateInfo) -> Iterator[Limit]:
    yield Limit(f"{key}.dtype", state.dtype, state.dtype == "float32", "float32")
    axes = len(state.shape)
    yield Limit(f"{key}.shape", f"{axes} axes", 1 <= axes <= _MOST_AXES, f"1 to {_MOST_AXES} axes")
    for axis, size in enumerate(state.shape):
        yield within(f"{key}.shape[{axis}]", size, 1, _WIDEST_STATE)
    yield within(f"{key}.shape", math.prod(state.shape), 1, _LARGEST_STATE)


def export_limits(info: ExportInfo, vocab_size: int) -> Iterator[Limit]:
    """Yield the rules for what the export found out and measured, which is only shown to users."""
    for place, token in enumerate(info.end_tokens):
        yield within(f"export.end_tokens[{place}].id", token.id, 0, vocab_size - 1)
    for step, seconds in info.seconds.items():
        yield within(f"export.seconds.{step}", seconds, 0)
    for name in ("parity", "encoder_parity"):
        parity = getattr(info, name)
        if parity is not None:
            yield from parity_limits(parity, f"export.{name}")
            for part in ("quantized", "prompts"):
                measured = getattr(parity, part, None)
                if measured is not None:
                    yield from parity_limits(measured, f"export.{name}.{part}")


def parity_limits(parity: Parity | EncoderParity, key: str) -> Iterator[Limit]:
    """Yield the rules for measured differences, which the manifest has under `key`."""
    for item in fields(parity):
        value = getattr(parity, item.name)
        if isinstance(value, int | float):
            yield within(f"{key}.{item.name}", value, *_RANGES.get(item.name, (0, _LARGEST_MEASURED)))
