"""One model, many threads: a call gets the model to itself, and no other's answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from triform.runtime.errors import InUseError

Item = TypeVar("Item")
# How often one that waits looks whether the thread it waits for has died, in seconds.
_LOOK = 0.5


@dataclass(eq=False)
class _Holder:
    """The thread that uses the model.

    Attributes:
        thread: see above.
        calls: how many of its calls have not ended.
    """

    thread: threading.Thread
    calls: int = 0


class Turns:
    """Gives a model to one thread at a time.

    A thread has the model from when its call begins until it ends; one that gives an iterator ends when that is
    exhausted, closed or forgotten. Meanwhile the same thread may begin other calls.
    """

    def __init__(self, *, shared: bool = False) -> None:
        """Nobody uses the model.

        Args:
            shared: let the calls of other threads wait for their turn, rather than refuse them.
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

    def iterate(self, make: Callable[[], Iterator[Item]]) -> Iterator[Item]:
        """Give what an iterator gives, which uses the model each time it is asked for more.

        Args:
            make: gives the iterator; called when the first item is asked for.

        Raises:
            InUseError: while iterating, another thread uses the model.
        """
        holder = self._begin()
        items: Iterator[Item] | None = None
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
                # Whoever closes waits for a run that goes on.
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
                self._changed.wait(_LOOK)
            if self._holder is None or self._holder.thread is not thread:
                self._holder = _Holder(thread)
            self._holder.calls += 1
            return self._holder

    def _is_held_by_another(self, thread: threading.Thread) -> bool:
        holder = self._holder
        # What a thread left behind when it ended is nobody's.
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
