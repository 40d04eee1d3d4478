"""Failures of tokenizers, which are written in Rust: one error of ours, and nothing of theirs on standard error."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# Not failures of the tokenizer: interrupts, too little memory, and arguments that a caller got wrong.
_PASSED_ON = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, TypeError, UnicodeError)


@contextmanager
def failures_as(make: Callable[[str], Exception]) -> Iterator[None]:
    """Turn whatever tokenizers raises inside into an error of ours.

    A panic in Rust raises pyo3's PanicException, which is no Exception but a BaseException, after it has written a
    message and a stack trace to standard error.

    Args:
        make: from the reason to the error.
    """
    try:
        with _quiet():
            yield
    except _PASSED_ON:
        raise
    except BaseException as error:
        raise make(str(error)) from None


@contextmanager
def panics_as(make: Callable[[str], Exception]) -> Iterator[None]:
    """Turn a panic in Rust inside into an error of ours; other errors, and what it prints, stay.

    Args:
        make: from the reason to the error.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        raise make(str(error)) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what native code writes off standard error.

    The descriptor belongs to the whole process, so it is left alone where other threads may be using it.
    """
    saved = _redirected() if threading.active_count() == 1 else None
    try:
        yield
    finally:
        if saved is not None:
            os.dup2(saved, 2)
            os.close(saved)


def _redirected() -> int | None:
    with suppress(OSError):
        saved = os.dup(2)
        try:
            nowhere = os.open(os.devnull, os.O_WRONLY)
        except OSError:
            os.close(saved)
            return None
        os.dup2(nowhere, 2)
        os.close(nowhere)
        return saved
    return None
