"""Streams for asyncio: the model runs in a worker thread, one call at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from triform.runtime.generation.answers import Piece
from triform.runtime.panics import OWN_THREADS


class ModelThread:
    """The worker thread that runs a decoder on behalf of event loops.

    A decoder is not thread-safe. With a pool of threads, tasks that stream concurrently, or a task that is canceled
    while the model runs, would use it from two threads at once. A single thread runs their calls one after the other.
    """

    def __init__(self) -> None:
        # The executor starts its thread on first use, and the thread ends when the executor is garbage-collected.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=OWN_THREADS)

    async def pieces(self, start: Callable[[], Iterator[Piece]]) -> AsyncGenerator[Piece]:
        """Run an iterator in the thread.

        Args:
            start: makes the iterator; it is called in the thread, too.

        Yields:
            the iterator's pieces.

        Raises:
            TriformError: whatever `start` or the iterator raises.
        """
        started: list[Iterator[Piece]] = []

        def next_piece() -> Piece | None:
            if not started:
                started.append(start())
            return next(started[0], None)

        loop = asyncio.get_running_loop()
        try:
            while (piece := await loop.run_in_executor(self._executor, next_piece)) is not None:
                yield piece
        finally:
            # A run of the model may still be in progress; closing queues behind it. The shield lets closing finish if
            # this task is canceled meanwhile.
            closing = loop.run_in_executor(self._executor, _close, started)
            await asyncio.shield(closing)


def _close(started: list[Iterator[Piece]]) -> None:
    """Close the iterator, if it was started; runs in the worker thread."""
    for pieces in started:
        getattr(pieces, "close", lambda: None)()
    started.clear()
