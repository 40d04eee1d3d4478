"""Makes Ctrl-C stop an answer rather than the program."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """The user pressed Ctrl-C."""


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Inside this context the first Ctrl-C is only recorded, so that the model ends its run; a second ends the program.

    Yields a function to call wherever it is safe to stop; it raises `Stopped` after a Ctrl-C.
    """
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    def check() -> None:
        if pressed:
            raise Stopped

    before = signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)
