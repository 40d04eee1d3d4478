"""Handles signals that ask the program to end: it ends after cleaning up its files."""

from __future__ import annotations

import os
import signal

# As in `triform` itself: what takes time to import comes later.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn

# What kill, docker stop and a shutdown send, and what a terminal sends when it is closed.
_NAMES = ("SIGTERM", "SIGHUP")
# The exit code of the signal that has asked the program to end.
_asked: list[int] = []


def end_in_order() -> None:
    """Make these signals end the program as an error does, with a shell's exit code: 128 plus the signal's number.

    A signal that the parent process ignores, as nohup does, stays ignored.
    """
    for name in _NAMES:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, _end)


def end_at_once() -> None:
    """Make Ctrl-C end the program at once, with a shell's exit code: for the time when nothing is there to clean up.

    Python's own way, an exception, would end in a traceback, or in another error of what is being imported. Ctrl-C that
    the parent process ignores stays ignored.
    """
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(128 + number))


def interrupt() -> None:
    """Make Ctrl-C raise KeyboardInterrupt again, after `end_at_once`."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    # A second signal must not interrupt the cleaning up.
    for name in _NAMES:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    _asked.append(128 + number)
    raise SystemExit(_asked[0])


def asked_to_end(error: BaseException) -> int | None:
    """The exit code of the signal that a failure came of; None if it came of none.

    A library that is being imported may turn what a signal's handler raises into an error of its own.
    """
    if _asked:
        return _asked[0]
    cause: BaseException | None = error
    # An error may be raised from itself.
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:
        if isinstance(cause, KeyboardInterrupt):
            return 128 + signal.SIGINT
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
    return None
