"""The loop with a model that is one line of arithmetic, and the cache's bookkeeping."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo
from triform.runtime.errors import InputError
from triform.runtime.generation.loop import GrowingRow, Token, plain_loop
from triform.runtime.generation.sampling import make_sampler
from triform.runtime.graphs.cache import KVCache

greedy = make_sampler([], None)


def generated(step, ids, eos, limit):
    return list(plain_loop(step, ids, GrowingRow(ids, greedy, eos=eos, max_new_tokens=limit)))


class Successor:
    """After token t the most likely token is t + 1."""

    def __init__(self):
        self.fed = []

    def _after(self, token):
        return np.eye(20, dtype=np.float32)[(token + 1) % 20]

    def prefill(self, ids):
        self.fed += ids
        return self._after(ids[-1])

    def next(self, token):
        self.fed.append(token)
        return self._after(token)


def test_stops_at_an_end_token_and_yields_it():
    step = Successor()
    tokens = generated(step, [3, 4], {8, 15}, 50)
    assert tokens == [Token(5, None), Token(6, None), Token(7, None), Token(8, "stop")]
    assert step.fed == [3, 4, 5, 6, 7]


def test_stops_at_the_limit_without_a_wasted_run():
    step = Successor()
    tokens = generated(step, [3], (), 2)
    assert tokens == [Token(4, None), Token(5, "length")]
    assert step.fed == [3, 4]


def test_an_end_token_at_the_limit_is_a_stop():
    assert [token.finish_reason for token in generated(Successor(), [3], [4], 1)] == ["stop"]


INFO = CacheInfo("float32", [LayerCacheInfo(2, 8), LayerCacheInfo(3, 16)])


def test_cache_grows_by_doubling_and_keeps_its_content():
    cache = KVCache(INFO, 1000)
    assert cache.reserve(10)
    assert cache.capacity == 64
    # Two parts of (2 * 8 + 3 * 16) float32 numbers a token.
    assert cache.nbytes == 64 * 2 * (2 * 8 + 3 * 16) * 4
    cache.buffers.arrays["1.key"][:] = np.arange(64)[:, None]
    cache.advance(64)
    assert not cache.reserve(64)
    assert cache.reserve(65)
    assert cache.capacity == 128
    assert (cache.buffers.arrays["1.key"][0, :, :64, 0] == np.arange(64)).all()
    cache.reserve(990)
    assert cache.capacity == 1000


def test_cache_verbs():
    cache = KVCache(INFO, 100, batch=2)
    cache.advance(np.array([5, 3]))
    cache.trim(4)
    assert cache.lengths.tolist() == [1, 0]
    cache.reset()
    assert cache.lengths.tolist() == [0, 0]
    with pytest.raises(InputError, match="101 tokens do not fit"):
        cache.reserve(101)
