"""Shows how far an export is, on standard error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from triform.cli.outputs.notes import say
from triform.cli.outputs.progress import drawn
from triform.cli.outputs.terminal import for_progress

if TYPE_CHECKING:
    from triform.export.report import StepProgress

# Seconds between events of one step.
_PAUSE = 0.5


@contextmanager
def export_progress(*, as_json: bool) -> Iterator[Callable[[StepProgress], None]]:
    """What to call with each report of an export.

    On a terminal a bar a step, with the time that is left where its parts are counted. Elsewhere a line a step; as JSON
    an object a line, such as ``{"step": "quantize", "done": 12, "total": 61}``, at each start of a step and at most
    twice a second.

    Args:
        as_json: whether a program reads it.
    """
    if sys.stderr.isatty():
        with _bar() as show:
            yield show
    elif as_json:
        yield _events()
    else:
        yield _say_step


def _say_step(progress: StepProgress) -> None:
    if progress.total is None:
        say(f"{progress.step} …")


def _events() -> Callable[[StepProgress], None]:
    last = 0.0

    def tell(progress: StepProgress) -> None:
        nonlocal last
        now = time.monotonic()
        if progress.total is not None and now - last < _PAUSE:
            return
        last = now
        event = {"step": progress.step, "done": progress.done, "total": progress.total}
        print(json.dumps(event), file=sys.stderr, flush=True)

    return tell


@contextmanager
def _bar() -> Iterator[Callable[[StepProgress], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    bar = Progress(*columns, console=Console(file=for_progress()), transient=True, auto_refresh=False)
    with drawn(bar):
        task = bar.add_task("start", total=None)

        def show(progress: StepProgress) -> None:
            if progress.total is None:
                bar.reset(task, description=progress.step, total=None)
            elif not progress.done:
                # The time that is left is counted from the first part on.
                bar.reset(task, description=progress.step, total=progress.total)
            else:
                bar.update(task, completed=progress.done)

        yield show
