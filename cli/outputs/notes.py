"""What a command says on standard error about inputs that it cut, skipped or refused."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from triform.cli.outputs.spelling import spelled

if TYPE_CHECKING:
    from triform.cli.inputs.records import Records
    from triform.runtime.text.rows import RowReader


def end_inputs(records: Records | None, reader: RowReader | None) -> None:
    """Say what was left out or cut, then raise what ended the reading early, if anything did.

    Args:
        records: what was read; None when the texts were arguments.
        reader: that turned the texts into rows; None when there were none.

    Raises:
        InputError: a record could not be used, and what came before it is finished.
    """
    if records is not None:
        _say_left_out(records)
    if reader is not None and reader.truncated:
        say(
            f"note: {reader.truncated} texts were longer than {reader.max_length} tokens and were cut; "
            "--strict refuses them"
        )
    if records is not None:
        records.check()


def _say_left_out(records: Records) -> None:
    if records.skipped:
        say(f"note: {records.skipped} inputs could not be used and were skipped; the first is {records.first_skipped}")
    if records.blanks:
        say(f"note: {records.blanks} blank lines were left out")
    if records.plain_json is not None:
        say(
            f"note: {records.place(records.plain_json)} is a JSON object and was taken as plain text; "
            "--field NAME takes a text out of each"
        )


def say(text: str) -> None:
    """Tell the user something that is no answer."""
    print(text, file=sys.stderr, flush=True)


def complain(error: Exception) -> None:
    """Say in one line what is wrong."""
    say(f"error: {' '.join(spelled(str(error)).split())}")
