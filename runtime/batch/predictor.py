"""A model as a function from tables to tables, for `triform batch`, Ray Data and other engines that work on tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from triform.runtime.batch.texts import check_column, require_pyarrow, texts_of
from triform.runtime.errors import BundleError, InputError, OutOfMemoryError

if TYPE_CHECKING:
    import pyarrow as pa

    from triform.runtime.batch.opened import RowTask, Values
    from triform.runtime.opening import LoadOptions

ERROR = "error"
# What one row can cause, so that the others are computed without it.
_OF_A_ROW = (InputError, BundleError, OutOfMemoryError)


class Predictor:
    """Adds a task's columns to tables. One thread at a time may call it.

    The column `error` says why a row has no results: it is null, blank or too long for a strict model, a recording
    cannot be read, or its results are not finite. It is null for rows that have results. Rows keep their order, and
    none is left out.

    Example, with Ray Data:
        >>> dataset.map_batches(  # doctest: +SKIP
        ...     triform.Predictor,
        ...     fn_constructor_args=("my-encoder", triform.EmbedTask()),
        ...     fn_constructor_kwargs={"column": "body", "threads": 1},
        ...     batch_format="pyarrow",
        ...     concurrency=8,
        ... )
    """

    def __init__(
        self, bundle: str | Path, task: RowTask, *, column: str = "text", **loading: Unpack[LoadOptions]
    ) -> None:
        """Load the model.

        Args:
            bundle: the bundle's folder.
            task: what to do: an `EmbedTask`, a `GenerateTask`, ….
            column: the column with the texts, or with the names of audio files.
            loading: see `load`.

        Raises:
            TriformError: the bundle cannot be loaded, or is for another task; or an option does not fit it.
            UnsupportedError: pyarrow is not installed.
        """
        require_pyarrow()
        self._column = column
        self._task = task.open(bundle, loading)

    @property
    def truncated(self) -> int:
        """The number of texts so far that were longer than the model reads, and were cut."""
        return self._task.truncated()

    def __call__(self, table: pa.Table) -> pa.Table:
        """The table with further columns.

        Args:
            table: any number of rows; the column with the texts may be a string, a large string or a dictionary.

        Raises:
            InputError: the column is missing or holds something else, or a column to add exists already.
            TriformError: the model cannot run at all.
        """
        import pyarrow as pa

        check_column(table.schema, self._column)
        for name in (*self._task.columns, ERROR):
            if name in table.schema.names:
                raise InputError(f"the table already has a column called {name!r}: rename it")
        texts, problems = texts_of(table, self._column)
        rows: list[Values] = [{} for _ in texts]
        for index, text in enumerate(texts):
            if text is not None:
                problems[index] = self._refusal(text)
        usable = [(index, text) for index, text in enumerate(texts) if text is not None and problems[index] is None]
        for (index, _), result in zip(usable, self._results([text for _, text in usable]), strict=True):
            if isinstance(result, str):
                problems[index] = result
            else:
                rows[index] = result
        for name, kind in self._task.columns.items():
            table = table.append_column(pa.field(name, kind), pa.array([row.get(name) for row in rows], kind))
        return table.append_column(pa.field(ERROR, pa.string()), pa.array(problems, pa.string()))

    def _refusal(self, text: str) -> str | None:
        try:
            self._task.check(text)
        except InputError as error:
            return str(error)
        return None

    def _results(self, texts: Sequence[str]) -> list[Values | str]:
        """The results of each text, or why there are none: texts that fail together are run in halves."""
        if not texts:
            return []
        try:
            return list(self._task.work(texts))
        except _OF_A_ROW as error:
            if len(texts) == 1:
                return [_reason(error)]
        half = len(texts) // 2
        return [*self._results(texts[:half]), *self._results(texts[half:])]


def _reason(error: Exception) -> str:
    """What an error says of the only text."""
    return re.sub(r"^(text|prompt) 1\b:?", "it", str(error))
