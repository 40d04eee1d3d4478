"""What native libraries write to standard error: what is hidden, what is shown later, and which errors become which."""

from __future__ import annotations

import os
import threading

import pytest

from triform.runtime import panics
from triform.runtime.errors import InputError
from triform.runtime.panics import failures_as, panics_as, without_chatter

PANIC = b"\nthread '<unnamed>' panicked at src/lib.rs:7:9:\nindex out of bounds\nnote: run with RUST_BACKTRACE=1\n"
NUMBERED = b"thread 'main' (12) panicked at a.rs:1:1:\nno\n"
MPG123 = b"[src/libmpg123/id3.c:process():1] error: no\nNote: a\nWarning: b\nError: c\n"


class Panic(BaseException):
    """As pyo3's PanicException."""


@pytest.fixture(autouse=True)
def without_threads_of_other_tests(monkeypatch):
    """Some go on after their tests, and standard error would be left alone because of them."""
    before = {thread for thread in threading.enumerate() if thread is not threading.main_thread()}
    every = threading.enumerate
    monkeypatch.setattr(threading, "enumerate", lambda: [thread for thread in every() if thread not in before])


def shown(capfd, *written):
    with without_chatter():
        for text in written:
            os.write(2, text)
        during = capfd.readouterr().err
    return during, capfd.readouterr().err


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ([b"own\n"], "own\n"), ([PANIC], ""), ([b"own\n" + PANIC], "own\n"), ([NUMBERED], ""), ([MPG123], ""),
        ([b"a\n", MPG123, b"b\n"], "a\nb\n"), ([b"a thread panicked at\n"], "a thread panicked at\n"), ([], ""),
        # Not at the beginning of a line.
        ([b"my Note: a\n"], "my Note: a\n"), ([b"x" * 100_000 + b"\n"], "x" * 100_000 + "\n"),
    ],
)  # fmt: skip
def test_what_appears_afterwards(capfd, written, expected):
    assert shown(capfd, *written) == ("", expected)


def test_one_context_in_another(capfd):
    with without_chatter():
        assert shown(capfd, b"a\n") == ("", "")
        os.write(2, b"b\n")
    assert capfd.readouterr().err == "a\nb\n"
    # And again.
    assert shown(capfd, b"c\n") == ("", "c\n")


@pytest.mark.parametrize(("name", "hidden"), [("other", False), (f"{panics.OWN_THREADS}-1", True)])
def test_other_threads_may_write(capfd, name, hidden):
    """Standard error is the whole process': it is left alone while a program's own threads run."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name=name)
    thread.start()
    try:
        during, after = shown(capfd, b"a\n")
    finally:
        done.set()
        thread.join()
    assert (during, after) == (("", "a\n") if hidden else ("a\n", ""))


def test_an_error_ends_it(capfd):
    with pytest.raises(KeyError), without_chatter():
        os.write(2, b"a\n")
        raise KeyError
    assert capfd.readouterr().err == "a\n"
    os.write(2, b"b\n")
    assert capfd.readouterr().err == "b\n"


@pytest.mark.parametrize("error", [Panic("index"), ValueError("index"), Exception("index")])
def test_failures_become_another_error(capfd, error):
    with (
        pytest.raises(InputError, match=r"^it fails: index$") as caught,
        failures_as(lambda m: InputError(f"it fails: {m}")),
    ):
        os.write(2, NUMBERED)
        raise error
    assert caught.value.__cause__ is None and caught.value.__suppress_context__ and capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit(), MemoryError(), TypeError("a"), UnicodeError("b")]
)
def test_what_is_no_failure_of_the_library(error):
    with pytest.raises(type(error)) as caught, failures_as(InputError):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "error", [ValueError("a"), KeyboardInterrupt(), SystemExit(1), GeneratorExit(), InputError("b")]
)
def test_only_panics_become_another_error(error):
    with pytest.raises(type(error)) as caught, panics_as(InputError):
        raise error
    assert caught.value is error
    with pytest.raises(InputError, match=r"^index$"), panics_as(InputError):
        raise Panic("index")


def test_nothing_is_raised_where_nothing_fails(capfd):
    with failures_as(InputError), panics_as(InputError):
        os.write(1, b"out")
    assert capfd.readouterr() == ("out", "")
