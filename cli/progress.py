"""How far through a file a command is, on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triform.cli.records import Record, Records

_BLOCK = 2**20


def with_progress(records: Records, *, results_to: Path | None) -> Iterator[Record]:
    """Pass records on, and show on standard error how many lines of their file were read.

    Only on a terminal, only for a file, and not where the results go to the same terminal.

    Args:
        records: what to pass on.
        results_to: the file that results go to while records are read; None for standard output.
    """
    shown = sys.stderr.isatty() and (results_to is not None or not sys.stdout.isatty())
    if not shown or records.file is None or not records.file.is_file():
        yield from records
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("lines", total=_lines(records.file))
        for record in records:
            bar.update(task, completed=record.number)
            yield record


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(_BLOCK), b"")) or 1
