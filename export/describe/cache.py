"""Describes what a decoder keeps of a text."""

from __future__ import annotations

from triform.models.spec import GraphSpec
from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo, StateInfo


def cache_info(spec: GraphSpec) -> CacheInfo:
    """The cache of a decoder's graph."""
    return CacheInfo(
        "float32",
        [LayerCacheInfo(layer.num_key_value_heads, layer.head_dim) for layer in spec.cache],
        [StateInfo(state.kind, "float32", list(state.shape)) for state in spec.states],
    )
