"""The ends of the ranges of a decoder's cache, and what its growth goes with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from triform.runtime.bundle.limits.graphs import cache_limits
from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo, StateInfo

LAYER, STATE = LayerCacheInfo(2, 64), StateInfo("recurrence", "float32", [3, 4])
PLAIN = CacheInfo("float32", [LAYER])
JOINED = replace(PLAIN, growth="concatenated")
HALF = replace(PLAIN, dtype="float16")


def refused(cache, target="cpu"):
    return {limit.key.removeprefix("cache."): limit.allowed for limit in cache_limits(cache, target) if not limit.fits}


@pytest.mark.parametrize(
    ("cache", "target", "expected"),
    [
        (PLAIN, "cpu", {}), (JOINED, "cpu", {}), (HALF, "gpu", {}), (replace(HALF, dtype="bfloat16"), "gpu", {}),
        (HALF, "cpu", {"dtype": "float32"}), (PLAIN, "gpu", {"dtype": "float16 or bfloat16"}),
        # Graphs for GPUs, and those with states, write into the buffers that they read.
        (replace(HALF, growth="concatenated"), "gpu", {"growth": "in_place for this model"}),
        (replace(JOINED, states=[STATE]), "cpu", {"growth": "in_place for this model"}),
        (replace(PLAIN, states=[STATE]), "cpu", {}),
        (replace(HALF, states=[STATE]), "gpu", {"states": "empty for GPUs"}),
        (replace(JOINED, uneven=False, single=True), "cpu", {}),
        (replace(PLAIN, uneven=False), "cpu", {"uneven": "true where a cache grows in place"}),
        (replace(PLAIN, single=True), "cpu", {"single": "false where a cache grows in place"}),
        (replace(PLAIN, layers=[]), "cpu", {"layers": "1 to 10000 layers"}),
        (replace(PLAIN, layers=[], states=[STATE]), "cpu", {}),
        (replace(PLAIN, layers=[LayerCacheInfo(0, 1)]), "cpu", {"layers[0].num_key_value_heads": "at least 1"}),
        (replace(PLAIN, layers=[LAYER, LayerCacheInfo(1, 0)]), "cpu", {"layers[1].head_dim": "at least 1"}),
        (replace(PLAIN, states=[replace(STATE, dtype="float16")]), "cpu", {"states[0].dtype": "float32"}),
        (replace(PLAIN, states=[replace(STATE, shape=[3, 0])]), "cpu",
         {"states[0].shape[1]": "at least 1", "states[0].shape": "at least 1"}),
        (replace(PLAIN, layers=[LAYER] * 10_000), "cpu", {}),
        (replace(PLAIN, layers=[LAYER] * 10_000, states=[STATE]), "cpu", {"layers": "1 to 10000 layers"}),
        (replace(PLAIN, layers=[LayerCacheInfo(2**20, 2**20)]), "cpu", {}),
        (replace(PLAIN, layers=[LayerCacheInfo(1, 2**20 + 1)]), "cpu", {"layers[0].head_dim": "at most 1048576"}),
        (replace(PLAIN, states=[replace(STATE, shape=[2**20, 2**8])]), "cpu", {}),
        (replace(PLAIN, states=[replace(STATE, shape=[2**20, 2**8 + 1])]), "cpu",
         {"states[0].shape": "at most 268435456"}),
        (replace(PLAIN, states=[replace(STATE, shape=[2**20 + 1])]), "cpu", {"states[0].shape[0]": "at most 1048576"}),
        (replace(PLAIN, states=[replace(STATE, shape=[1, 1, 1])]), "cpu", {}),
        (replace(PLAIN, states=[replace(STATE, shape=[1, 1, 1, 1])]), "cpu", {"states[0].shape": "1 to 3 axes"}),
        (replace(PLAIN, states=[replace(STATE, shape=[])]), "cpu", {"states[0].shape": "1 to 3 axes"}),
    ],
)  # fmt: skip
def test_a_cache(cache, target, expected):
    assert refused(cache, target) == expected
