"""Ctrl-C that stops an answer rather than the program."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):
    """Somebody pressed Ctrl-C."""


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Within, the first Ctrl-C is only noted, so that the model ends its run; the second ends the program as ever.

    Gives a function to call where stopping does no harm; it raises `Stopped` when there was a Ctrl-C.
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
