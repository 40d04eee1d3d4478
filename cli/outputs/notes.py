"""What a command says on standard error about inputs that it cut, skipped or refused."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from triform.cli.outputs.spelling import spelled
from triform.runtime.printable import one_line

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
    if reader is not None:
        say_truncated(reader.truncated, "text", reader.max_length)
    if records is not None:
        records.check()


def say_truncated(count: int, noun: str, max_length: int) -> None:
    """Say that inputs were cut, if any were.

    Args:
        count: how many.
        noun: what each is, such as text or sentence.
        max_length: tokens that the model reads.
    """
    if count:
        say(f"note: cut {_counted(count, noun)} longer than {max_length} tokens; --strict refuses such {noun}s")


def _say_left_out(records: Records) -> None:
    if records.skipped:
        skipped = _counted(records.skipped, "input")
        say(f"note: skipped {skipped} that could not be used; the first is {records.first_skipped}")
    if records.blanks:
        say(f"note: left out {_counted(records.blanks, 'blank line')}")
    if records.plain_json is not None:
        say(
            f"note: {records.place(records.plain_json)} is a JSON object and was taken as plain text; "
            "--field NAME takes a text out of each"
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def say(text: str) -> None:
    """Tell the user something that is no answer, in one line."""
    print(one_line(text), file=sys.stderr, flush=True)


def complain(error: Exception) -> None:
    """Say in one line what is wrong."""
    say(f"error: {spelled(str(error))}")
