"""Progress bars on a terminal, and results in the order of their inputs."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from triform.cli.outputs.terminal import for_progress
from triform.runtime.panics import OWN_THREADS

if TYPE_CHECKING:
    from rich.progress import Progress

    from triform.cli.inputs.records import Record, Records

_BLOCK = 2**20
# Seconds between two drawings of a bar.
_PAUSE = 0.1


def with_progress(records: Records, *, results_to: Path | None) -> Iterator[Record]:
    """The same records; shows on standard error how many lines of their file were read.

    Shown only on a terminal, only for a file, and not if the results go to the same terminal.

    Args:
        records: the records to read.
        results_to: the file that results go to while records are read; None for standard output.
    """
    if not _is_shown(results_to) or records.file is None or not records.file.is_file():
        yield from records
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True))
    bar = Progress(*columns, console=Console(file=for_progress()), transient=True, auto_refresh=False)
    with drawn(bar):
        task = bar.add_task("lines", total=_lines(records.file))
        for record in records:
            bar.update(task, completed=record.number)
            yield record


@contextmanager
def seconds_bar(total: float | None, *, results_to: Path | None) -> Iterator[Callable[[float], None]]:
    """Show on standard error how many seconds of a recording are done; yields a function to report them.

    Shown under the same conditions as `with_progress`.

    Args:
        total: how long the recording is, in seconds; None when that is not known.
        results_to: the file that results go to; None for standard output.
    """
    if not _is_shown(results_to):
        yield lambda seconds: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    count = "{task.completed:.0f} s" if total is None else "{task.completed:.0f}/{task.total:.0f} s"
    columns = (BarColumn(), TextColumn(count), TimeRemainingColumn(elapsed_when_finished=True))
    bar = Progress(*columns, console=Console(file=for_progress()), transient=True, auto_refresh=False)
    with drawn(bar):
        task = bar.add_task("seconds", total=total)
        yield lambda seconds: bar.update(task, completed=seconds)


@contextmanager
def drawn(bar: Progress) -> Iterator[None]:
    """Draw a bar again and again, until the context ends.

    rich's own thread would be taken for one of a program that uses triform: standard error would not be redirected,
    and show what libraries say.

    Args:
        bar: without `auto_refresh`.
    """
    ended = threading.Event()

    def draw() -> None:
        while not ended.wait(_PAUSE):
            bar.refresh()

    thread = threading.Thread(target=draw, name=f"{OWN_THREADS}-progress", daemon=True)
    with bar:
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _is_shown(results_to: Path | None) -> bool:
    return sys.stderr.isatty() and (results_to is not None or not sys.stdout.isatty())


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b"")) or 1


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def with_results(
    records: Records, work: Callable[[Iterable[Any]], Iterator[_Result]]
) -> Iterator[tuple[Record, _Result]]:
    """Each record with its result, in order and in bounded memory; progress is shown as by `with_progress`.

    Args:
        records: the inputs.
        work: takes their texts lazily, or their pages where the records have pages, and yields one result for each.
    """
    shown = with_progress(records, results_to=None)
    return alongside(shown, lambda some: work(record.input for record in some))


def alongside(
    items: Iterable[_Item], work: Callable[[Iterator[_Item]], Iterable[_Result]]
) -> Iterator[tuple[_Item, _Result]]:
    """Each item with its result, in order and in bounded memory.

    Args:
        items: taken lazily, as `work` takes them.
        work: yields one result per item.
    """
    first, second = tee(items)
    # The result first: an item is not taken only to learn that no result is to come.
    for result, item in zip(work(first), second, strict=True):
        yield item, result
