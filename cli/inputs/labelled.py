"""Reads files with right answers: JSON objects or the rows of a table, with columns of known names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from triform.cli.inputs.formats import Layout, file_format, parse
from triform.runtime.errors import InputError


class LabelledFile:
    """The rows of a file.

    Args:
        path: a .jsonl, .json, .csv or .tsv file.
        needs: the columns that the task needs, for errors.

    Raises:
        InputError: it cannot be read, holds nothing, or a line is not a row.
    """

    def __init__(self, path: Path, needs: str) -> None:
        self.path, self._needs = path, needs
        self._rows = list(self._read())
        if not self._rows:
            raise InputError(f"{path} holds no items")

    def _read(self) -> Iterator[tuple[int, dict[str, Any]]]:
        # Any column will do as the text here; `columns` looks for those that are needed.
        try:
            with self.path.open("rb") as opened:
                for parsed in parse(opened, Layout(file_format(self.path, "text"), None, _NAMES)):
                    if parsed.problem is not None:
                        raise InputError(f"line {parsed.number}: {parsed.problem}")
                    if parsed.record is not None:
                        yield parsed.record.number, parsed.record.value or {}
        except InputError as error:
            raise InputError(f"{self.path} cannot be used: {error}; {self._needs}") from None
        except OSError as error:
            raise InputError(f"{self.path} cannot be read: {error.strerror or error}") from None

    def has(self, names: Sequence[str]) -> bool:
        """Whether the first row has one of these columns."""
        return any(name in self._rows[0][1] for name in names)

    def column(self, names: Sequence[str], convert: Callable[[Any], Any]) -> list[Any]:
        """A value of each row.

        Args:
            names: of the column; the first that a row has counts.
            convert: returns the value, or raises ValueError or TypeError with what is wrong with it.

        Raises:
            InputError: a row has no such column, or its value cannot be used.
        """
        values = []
        for number, row in self._rows:
            name = next((name for name in names if name in row), None)
            if name is None:
                raise InputError(f"line {number} of {self.path} has no column {' or '.join(names)}; {self._needs}")
            try:
                values.append(convert(row[name]))
            except (ValueError, TypeError) as error:
                raise InputError(f"line {number} of {self.path}: {name} {error}") from None
        return values


# Every column that an evaluation can read as a text.
_NAMES = ("text", "text1", "sentence1", "query", "source", "prompt", "audio")


def as_text(value: Any) -> str:
    """A text.

    Raises:
        TypeError: it is not a text.
    """
    from triform.runtime.text.checks import invalid_at

    if not isinstance(value, str) or invalid_at(value) is not None:
        raise TypeError("is not a text")
    return value


def as_number(value: Any) -> float:
    """A number; tables have only texts, so one that reads as a number counts.

    Raises:
        ValueError: it is not a number.
    """
    import math

    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (ValueError, TypeError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("is not a number")
    return number


def as_spans(value: Any) -> list[tuple[int, int, str]]:
    """Spans, of a list of objects with start, end and label.

    Raises:
        TypeError: it is something else.
    """
    try:
        return [(int(span["start"]), int(span["end"]), as_text(span["label"])) for span in value]
    except (KeyError, TypeError, ValueError):
        raise TypeError("is not a list of objects with start, end and label") from None
