"""Works ahead: computes what is needed next in a thread, while the caller uses what it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from triform.runtime.panics import OWN_THREADS

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def ahead(items: Iterable[_Item], work: Callable[[_Item], _Result]) -> Iterator[_Result]:
    """Yield ``work(item)`` of each item, in order, and work on the next meanwhile.

    The items are taken in the caller's thread. An error, of an item or of the work, is raised after the results before
    it.

    Args:
        items: any number.
        work: called in another thread, one call at a time.
    """
    source = iter(items)
    with ThreadPoolExecutor(1, thread_name_prefix=OWN_THREADS) as pool:
        coming = _submit(pool, source, work)
        while coming is not None:
            following = _submit(pool, source, work)
            yield coming.result()
            coming = following


def _submit(
    pool: ThreadPoolExecutor, source: Iterator[_Item], work: Callable[[_Item], _Result]
) -> Future[_Result] | None:
    """Start the work on the next item; None if there is none."""
    try:
        item = next(source)
    except StopIteration:
        return None
    except Exception as error:  # whatever the items' maker raises
        failed: Future[_Result] = Future()
        failed.set_exception(error)
        return failed
    return pool.submit(work, item)
