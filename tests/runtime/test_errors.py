"""What says that there is no memory left: Python, the system, and the libraries that allocate it."""

from __future__ import annotations

import errno

import pytest

from triform.runtime.errors import (
    InputError,
    OutOfMemoryError,
    TriformError,
    is_default,
    is_out_of_memory,
    refuse_unused,
    use_defaults,
)
from triform.runtime.printable import one_line


def raised_from(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, False),
        (MemoryError(), True),
        (OutOfMemoryError("the cache does not fit"), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOMEM, "another language"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("Failed to allocate memory for requested buffer of size 9"), True),
        (RuntimeError("CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED"), True),
        (ValueError("Unable to allocate 3 GiB"), True),
        (RuntimeError("the graph is damaged"), False),
        # What a message of Triform's quotes is no such error, such as a text of the user's.
        (InputError("there is no template 'out of memory'"), False),
        (raised_from(TriformError("the encoder failed"), RuntimeError("bad_alloc")), True),
        (raised_from(TriformError("a"), raised_from(ValueError("b"), MemoryError())), True),
        (raised_from(TriformError("a"), ValueError("b")), False),
    ],
)
def test_no_memory_left(error, expected):
    assert is_out_of_memory(error) is expected


@pytest.mark.parametrize("text", ["a b\x1d", "\n a\r\n\n b \n", "a\x1c\x1c b\u2028"])
def test_one_line_has_no_blank_ends_and_no_blank_lines(text):
    assert one_line(text) == one_line(one_line(text)) == "a b"


@pytest.fixture
def defaults():
    yield use_defaults
    use_defaults(())


def test_the_last_defaults_count(defaults):
    assert not is_default("top_k")
    defaults(["top_k", "seed"])
    assert [is_default(name) for name in ("top_k", "seed", "keep")] == [True, True, False]
    defaults(["keep"])
    assert [is_default(name) for name in ("top_k", "seed", "keep")] == [False, False, True]


def test_what_has_no_effect_is_refused_where_it_was_given_for_this_call(defaults):
    refuse_unused("is for encoders", top_k=False, seed=False)
    with pytest.raises(InputError, match=r"^`seed` is for encoders; leave it out$"):
        refuse_unused("is for encoders", top_k=False, seed=True)
    defaults(["seed"])
    refuse_unused("is for encoders", top_k=False, seed=True)
    refuse_unused("is for encoders", seed=False)
    with pytest.raises(InputError, match=r"^`top_k` is for encoders; leave it out$"):
        refuse_unused("is for encoders", seed=True, top_k=True)
