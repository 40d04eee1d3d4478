"""Keeps what native libraries say off standard error, and turns panics in Rust into Triform's errors."""

from __future__ import annotations

import atexit
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from triform.runtime.errors import pass_on

# Exceptions that are not failures of the tokenizer: interrupts, too little memory, and wrong arguments.
_PASSED_ON = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, TypeError, UnicodeError)
# How the names of threads begin that only run models, and write to standard error only what native code does.
OWN_THREADS = "triform"
# Rust's message of a panic. It has no certain end, so all that follows is taken for a part of it.
_PANICS = re.compile(rb"\n?thread '[^'\n]*'(?: \(\d+\))? panicked at .*", re.DOTALL)
# What mpg123, which reads MP3 for libsndfile, says of a damaged file.
_MPG123 = re.compile(rb"^(?:\[src/libmpg123/|Note: |Warning: |Error: ).*\n?", re.MULTILINE)


@contextmanager
def failures_as(make: Callable[[str], Exception]) -> Iterator[None]:
    """Turn any exception of tokenizers into the error that `make` makes.

    A panic in Rust raises pyo3's PanicException, which is a BaseException but not an Exception, after it has written a
    message and a stack trace to standard error.

    Args:
        make: makes the error from the exception's message.
    """
    try:
        with without_chatter():
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
def without_chatter() -> Iterator[None]:
    """Hide what panics in Rust and mpg123 write to standard error; what else is written there appears afterwards.

    The file descriptor belongs to the whole process, so it is not redirected while a program's own threads may use it.
    """
    redirected = _only_own_threads() and _STDERR.redirect()
    try:
        yield
    finally:
        if redirected:
            _STDERR.restore()


def _only_own_threads() -> bool:
    main = threading.main_thread()
    return all(thread is main or thread.name.startswith(OWN_THREADS) for thread in threading.enumerate())


class _StandardError:
    """Standard error, kept in a file while any thread wants it redirected."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._saved = self._kept = -1
        # A program that ends while a thread of its model works still shows its own messages.
        atexit.register(self._show)

    def redirect(self) -> bool:
        """Begin to redirect; False if it cannot be done."""
        with self._lock:
            if self._users == 0 and not self._hide():
                return False
            self._users += 1
            return True

    def restore(self) -> None:
        """End one redirection; the last one shows what was written, except what is hidden."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._show()

    def _hide(self) -> bool:
        with suppress(OSError):
            saved = os.dup(2)
            try:
                kept = _nameless_file()
            except OSError:
                os.close(saved)
                return False
            os.dup2(kept, 2)
            self._saved, self._kept = saved, kept
            return True
        return False

    def _show(self) -> None:
        if self._saved < 0:
            return
        os.dup2(self._saved, 2)
        os.close(self._saved)
        try:
            size = os.lseek(self._kept, 0, os.SEEK_END)
            if size:
                os.lseek(self._kept, 0, os.SEEK_SET)
                shown = _MPG123.sub(b"", _PANICS.sub(b"", os.read(self._kept, size)))
                while shown:
                    shown = shown[os.write(2, shown) :]
        except OSError:
            # Standard error is closed or full.
            return
        finally:
            os.close(self._kept)
            self._saved = self._kept = -1


def _nameless_file() -> int:
    if sys.platform == "linux":
        return os.memfd_create("triform-stderr")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


_STDERR = _StandardError()
