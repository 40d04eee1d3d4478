"""Which graph reads a prompt: from 256 tokens on the one for long prompts, which is opened once."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from triform.runtime.graphs.decoding.prompts import PromptGraphs

LENGTHS = (0, 1, 255, 256, 257, 10_000)


def memory():
    return SimpleNamespace(on=lambda session: f"on {session}")


@pytest.mark.parametrize("length", LENGTHS)
def test_without_a_graph_for_long_prompts_there_is_one(length):
    graphs, own = PromptGraphs(), memory()
    assert graphs.memory(own, length) is own and not graphs.is_long(length)
    assert not any(graphs.differ(length, other) for other in LENGTHS)


@pytest.mark.parametrize("length", LENGTHS)
def test_long_prompts_have_256_tokens_or_more(length):
    opened = []
    graphs, own = PromptGraphs(lambda: opened.append(length) or "long"), memory()
    long = length >= 256
    assert graphs.is_long(length) is long
    assert graphs.memory(own, length) == ("on long" if long else own)
    assert opened == [length] * long
    assert [graphs.differ(length, other) for other in LENGTHS] == [long is not (other >= 256) for other in LENGTHS]
    assert [graphs.differ(other, length) for other in LENGTHS] == [long is not (other >= 256) for other in LENGTHS]


def test_the_graph_is_opened_once_by_several_threads():
    opened, start = [], threading.Barrier(4)
    graphs = PromptGraphs(lambda: opened.append(1) or f"graph {len(opened)}")
    found = []

    def read():
        start.wait()
        found.append(graphs.memory(memory(), 300))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["on graph 1"] * 4 and opened == [1]
