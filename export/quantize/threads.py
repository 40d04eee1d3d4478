"""Runs small pieces of work at once, each on one thread.

PyTorch shares every operation among its threads, which wait for each other at its end. Operations that take
microseconds gain nothing by that. Where other programs use the processor too, they wait a thousand times longer than
they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

# Of each of which a matrix and what is computed of it may be in memory.
_MOST_THREADS = 8

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_threads(function: Callable[[_Item], _Result], items: Collection[_Item]) -> Iterator[_Result]:
    """Call a function for each item, for as many at once as PyTorch has threads, without gradients.

    Args:
        function: what it computes with PyTorch is computed on the thread that calls it.
        items: for one call each.

    Yields:
        the results, in the order of the items.
    """
    threads = torch.get_num_threads()
    if min(threads, len(items)) < 2:
        for item in items:
            with torch.no_grad():
                result = function(item)
            yield result
        return

    def on_one_thread(item: _Item) -> _Result:
        torch.set_num_threads(1)
        with torch.no_grad():
            return function(item)

    pool = ThreadPoolExecutor(min(threads, len(items), _MOST_THREADS))
    try:
        yield from pool.map(on_one_thread, items)
    finally:
        pool.shutdown(cancel_futures=True)
        # The number is each thread's own, but new threads begin with the last that was set.
        torch.set_num_threads(threads)
