"""Turns failures of tokenizers, which is written in Rust, into Triform's errors, with nothing on standard error."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from triform.runtime.errors import pass_on

# Exceptions that are not failures of the tokenizer: interrupts, too little memory, and wrong arguments.
_PASSED_ON = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, TypeError, UnicodeError)


@contextmanager
def failures_as(make: Callable[[str], Exception]) -> Iterator[None]:
    """Turn any exception of tokenizers into the error that `make` makes.

    A panic in Rust raises pyo3's PanicException, which is a BaseException but not an Exception, after it has written a
    message and a stack trace to standard error.

    Args:
        make: makes the error from the exception's message.
    """
    try:
        with _quiet():
            yield
    except _PASSED_ON:
        raise
    except BaseException as error:
        pass_on(error)
        raise make(str(error)) from None


@contextmanager
def panics_as(make: Callable[[str], Exception]) -> Iterator[None]:
    """Turn a panic in Rust into the error that `make` makes; other exceptions, and the panic's output, pass unchanged.

    Args:
        make: makes the error from the panic's message.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:
        pass_on(error)
        raise make(str(error)) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what native code writes to standard error.

    The file descriptor belongs to the whole process, so it is not redirected while other threads may use it.
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
