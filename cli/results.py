"""Records and what was found of them, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import tee
from typing import TYPE_CHECKING, TypeVar

from triform.cli.progress import with_progress

if TYPE_CHECKING:
    from triform.cli.records import Record, Records

Result = TypeVar("Result")


def with_results(
    records: Records, work: Callable[[Iterable[str]], Iterator[Result]]
) -> Iterator[tuple[Record, Result]]:
    """Each record with its result, in order and in bounded memory; progress is shown where that makes sense.

    Args:
        records: the inputs.
        work: takes their texts lazily, gives one result a text.
    """
    first, second = tee(with_progress(records, results_to=None))
    return zip(second, work(record.text for record in first), strict=True)
