"""Lets several threads share a model that runs one call at a time, so that no thread gets another's answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from triform.runtime.errors import InUseError

_Item = TypeVar("_Item")
# How often a waiting thread checks whether the thread that has the model has died, in seconds.
_POLL = 0.5


@dataclass(eq=False)
class _Holder:
    """The thread that has the model.

    Attributes:
        thread: the thread.
        calls: number of its calls that have not ended.
    """

    thread: threading.Thread
    calls: int = 0


class Turns:
    """Gives a model to one thread at a time.

    A thread has the model until its call ends. A call that returns an iterator ends when the iterator is exhausted,
    closed or garbage-collected. Meanwhile the same thread may begin other calls.
    """

    def __init__(self, *, shared: bool = False) -> None:
        """Begin with no thread using the model.

        Args:
            shared: whether calls from other threads wait for their turn, rather than raise InUseError.
        """
        self._shared = shared
        self._changed = threading.Condition()
        self._holder: _Holder | None = None
        # Held while the model runs: an iterator may be handed from one thread to another.
        self._running = threading.RLock()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Use the model inside the block.

        Raises:
            InUseError: another thread uses it.
        """
        holder = self._begin()
        try:
            with self._run():
                yield
        finally:
            self._end(holder)

    def iterate(self, make: Callable[[], Iterator[_Item]]) -> Iterator[_Item]:
        """Yield the items of an iterator that runs the model for each item.

        Args:
            make: makes the iterator; called when the first item is read.

        Raises:
            InUseError: while iterating, another thread uses the model.
        """
        holder = self._begin()
        items: Iterator[_Item] | None = None
        try:
            while True:
                with self._run():
                    items = make() if items is None else items
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                yield item
        finally:
            try:
                # Closing from another thread waits until the current run has ended.
                with self._running:
                    getattr(items, "close", lambda: None)()
            finally:
                self._end(holder)

    def _begin(self) -> _Holder:
        thread = threading.current_thread()
        with self._changed:
            while self._is_held_by_another(thread):
                if not self._shared:
                    raise _in_use()
                self._changed.wait(_POLL)
            if self._holder is None or self._holder.thread is not thread:
                self._holder = _Holder(thread)
            self._holder.calls += 1
            return self._holder

    def _is_held_by_another(self, thread: threading.Thread) -> bool:
        holder = self._holder
        # A thread that ended with unfinished calls no longer has the model.
        return holder is not None and holder.thread is not thread and holder.thread.is_alive()

    def _end(self, holder: _Holder) -> None:
        with self._changed:
            holder.calls -= 1
            if holder.calls == 0 and self._holder is holder:
                self._holder = None
                self._changed.notify_all()

    @contextmanager
    def _run(self) -> Iterator[None]:
        if not self._running.acquire(blocking=self._shared):
            raise _in_use()
        try:
            yield
        finally:
            self._running.release()


def _in_use() -> InUseError:
    return InUseError(
        "the model is in use by another thread, whose call or stream has not ended; close streams that are not read to "
        "their end, load the model once for each thread, or load it with `shared` to let calls wait for their turn"
    )
