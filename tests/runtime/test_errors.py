"""What says that there is no memory left: Python, the system, and the libraries that allocate it."""

from __future__ import annotations

import errno

import pytest

from triform.runtime.errors import InputError, OutOfMemoryError, TriformError, is_out_of_memory
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
