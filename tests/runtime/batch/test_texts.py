"""The texts of a column: which types hold them, and why a row has none."""

from __future__ import annotations

import sys

import pyarrow as pa
import pytest

from triform.runtime.batch.texts import check_column, require_pyarrow, texts_of
from triform.runtime.errors import InputError, UnsupportedError

TEXTS = [
    pa.string(), pa.large_string(), pa.string_view(), pa.null(), pa.dictionary(pa.int8(), pa.string()),
    pa.dictionary(pa.int32(), pa.large_string()),
]  # fmt: skip
OTHERS = [
    pa.int64(), pa.binary(), pa.list_(pa.string()), pa.dictionary(pa.int8(), pa.int32()), pa.bool_(), pa.float16(),
]  # fmt: skip


@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_columns_that_hold_text(kind):
    check_column(pa.schema([("id", pa.int64()), ("text", kind)]), "text")


@pytest.mark.parametrize("kind", OTHERS, ids=str)
def test_columns_that_hold_something_else(kind):
    with pytest.raises(InputError) as caught:
        check_column(pa.schema([("text", kind)]), "text")
    assert str(caught.value) == f"the column 'text' holds {kind}, not text"


def test_columns_that_are_missing_or_there_twice():
    schema = pa.schema([("a", pa.string()), ("b", pa.string()), ("b", pa.string())])
    for column, problem in (("c", "no column is"), ("b", "2 columns are")):
        with pytest.raises(InputError) as caught:
            check_column(schema, column)
        assert str(caught.value) == f"{problem} called {column!r}; there are: a, b, b"
    check_column(schema, "a")


def test_rows_without_text_say_why():
    table = pa.table({"text": ["a", None, "", " \n\t", " b "]})
    assert texts_of(table, "text") == (["a", None, None, None, " b "], [None, "it is null", *["it is blank"] * 2, None])
    assert texts_of(pa.table({"text": pa.array([], pa.string())}), "text") == ([], [])


def test_bytes_that_are_not_utf8_are_kept_to_be_refused():
    """Arrow reads them as text; other rows of the column are read as they are, and an absent one is absent."""
    damaged = pa.array([b"a", b"\xff", None, "ß".encode()], pa.binary()).view(pa.string())
    assert texts_of(pa.table({"text": damaged}), "text") == (
        ["a", "\udcff", None, "ß"], [None, None, "it is null", None],
    )  # fmt: skip


def test_without_pyarrow(monkeypatch):
    require_pyarrow()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnsupportedError, match=r"^tables need pyarrow: "):
        require_pyarrow()
