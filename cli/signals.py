"""Signals that ask a program to end: it does, after it has put its files in order."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn

# What kill, docker stop and a shutdown send, and what a terminal sends when it is closed.
_NAMES = ("SIGTERM", "SIGHUP")


def end_in_order() -> None:
    """Let these signals end the program as an error does, with the exit code of a shell: 128 and the signal's number.

    A signal that the parent process ignores, as nohup does, stays ignored.
    """
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    # Nobody who asks twice is to leave files behind.
    for name in _NAMES:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    raise SystemExit(128 + number)
