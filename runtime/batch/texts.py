"""The texts of a column, and why a row has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triform.runtime.errors import InputError
from triform.runtime.extras import missing_extra

if TYPE_CHECKING:
    import pyarrow as pa


def require_pyarrow() -> None:
    """Check that tables can be read.

    Raises:
        UnsupportedError: pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise missing_extra("tables need pyarrow", "batch") from None


def check_column(schema: pa.Schema, column: str) -> None:
    """Check that a column holds texts.

    Raises:
        InputError: there is no such column, or it holds something else.
    """
    count = schema.names.count(column)
    if count != 1:
        problem = "no column is" if count == 0 else f"{count} columns are"
        raise InputError(f"{problem} called {column!r}; there are: {', '.join(schema.names)}")
    kind = schema.field(column).type
    if not _holds_text(kind):
        raise InputError(f"the column {column!r} holds {kind}, not text")


def texts_of(table: pa.Table, column: str) -> tuple[list[str | None], list[str | None]]:
    """The texts of a column.

    Returns:
        for each row its text or None, and why it has none or None.
    """
    texts = [_text(value) for value in _values(table.column(column))]
    problems = [None if text is not None and text.strip() else _problem(text) for text in texts]
    return [text if problem is None else None for text, problem in zip(texts, problems, strict=True)], problems


def _values(column: pa.ChunkedArray) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        # Arrow does not check what a file's writer called text.
        import pyarrow as pa

        values = column.cast(pa.large_binary()).to_pylist()
    return values


def _text(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _problem(text: str | None) -> str:
    return "it is null" if text is None else "it is blank"


def _holds_text(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    if types.is_dictionary(kind):
        kind = kind.value_type
    # A column of nulls only has no other type; each of its rows is refused.
    texts = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    return any(is_text(kind) for is_text in texts)
