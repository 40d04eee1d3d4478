"""What a command says on standard error about inputs that it cut, skipped or refused."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from triform.cli.outputs.spelling import spelled

if TYPE_CHECKING:
    from triform.cli.inputs.records import Records
    from triform.runtime.text.rows import RowReader


def say_left_out(records: Records | None, reader: RowReader | None) -> None:
    """Say how many lines were skipped and how many texts were cut, if any.

    Args:
        records: what was read; None when the texts were arguments.
        reader: that turned the texts into rows; None when there were none.
    """
    if records is not None and records.skipped:
        print(f"note: {records.skipped} lines could not be read and were skipped", file=sys.stderr)
    if reader is not None and reader.truncated:
        print(
            f"note: {reader.truncated} texts were longer than {reader.max_length} tokens and were cut; "
            "--strict refuses them",
            file=sys.stderr,
        )


def say(text: str) -> None:
    """Tell the user something that is no answer."""
    print(text, file=sys.stderr, flush=True)


def say_skipped(error: Exception) -> None:
    """Say why an input is skipped."""
    say(f"note: skipped: {spelled(str(error))}")


def complain(error: Exception) -> None:
    """Say in one line what is wrong."""
    say(f"error: {' '.join(spelled(str(error)).split())}")
