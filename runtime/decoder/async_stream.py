"""Pieces for an event loop: the model runs in a thread, one thing at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from triform.runtime.generation.answers import Piece


class ModelThread:
    """The one thread in which a decoder works for event loops.

    A decoder is not thread-safe, and tasks that stream from it side by side, or one that is canceled while the model
    runs, would make threads meet in it. In one thread everything comes one after the other.
    """

    def __init__(self) -> None:
        # Starts its thread when there is something to do, and ends it when nobody holds the executor.
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="triform")

    async def pieces(self, start: Callable[[], Iterator[Piece]]) -> AsyncGenerator[Piece]:
        """Run an iterator in the thread.

        Args:
            start: makes the iterator; called in the thread too.

        Yields:
            what the iterator gives.
        """
        made: list[Iterator[Piece]] = []

        def following() -> Piece | None:
            if not made:
                made.append(start())
            return next(made[0], None)

        loop = asyncio.get_running_loop()
        try:
            while (piece := await loop.run_in_executor(self._executor, following)) is not None:
                yield piece
        finally:
            # Behind a run of the model that may still be going on. Nobody needs to wait for it twice.
            closing = loop.run_in_executor(self._executor, _close, made)
            await asyncio.shield(closing)


def _close(made: list[Iterator[Piece]]) -> None:
    """Close the iterator, if there is one, so that it ends in the thread it ran in."""
    for pieces in made:
        getattr(pieces, "close", lambda: None)()
    made.clear()
