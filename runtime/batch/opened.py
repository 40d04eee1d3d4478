"""What a task gives when its model is loaded: the columns that it adds, and how they are computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

    from triform.runtime.opening import LoadOptions

# The values of one row's new columns, by their names.
Values = dict[str, Any]


@dataclass(frozen=True)
class OpenTask:
    """A task with its model.

    Attributes:
        columns: the types of the columns that it adds, by their names.
        work: reads texts, or names of recordings, lazily; yields a row for each, in order.
        check: raises an InputError for an input that the model cannot read, without running the model.
        truncated: the number of inputs so far that were longer than the model reads, and were cut.
    """

    columns: dict[str, pa.DataType]
    work: Callable[[Iterable[str]], Iterator[Values]]
    check: Callable[[str], object] = lambda text: None
    truncated: Callable[[], int] = lambda: 0


class RowTask(Protocol):
    """What to do with each row of a table, before a model is loaded. Instances can be sent to other processes.

    Attributes:
        reads: what the rows hold: texts, or names of audio files.
        rows: how many rows are worth a file of their own: some minutes of work at most, which a killed run loses.
    """

    reads: ClassVar[Literal["text", "audio"]]
    rows: ClassVar[int]

    def open(self, bundle: str | Path, loading: LoadOptions) -> OpenTask:
        """Load the model.

        Raises:
            TriformError: it cannot be loaded, or an option does not fit it.
        """
        ...

    def settings(self) -> dict[str, object]:
        """The options that results depend on, by name."""
        ...
