"""Notes on standard error about inputs that were truncated, skipped or refused."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from triform.cli.outputs.spelling import spelled
from triform.runtime.printable import one_line

if TYPE_CHECKING:
    from triform.cli.inputs.records import Records
    from triform.runtime.text.rows import RowReader


def end_inputs(records: Records | None, reader: RowReader | None) -> None:
    """Note what was skipped or truncated, then raise the error that ended the reading early, if any.

    Args:
        records: the records read; None if the texts were arguments.
        reader: the reader that tokenized the texts; None without one.

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
    """Note how many inputs were truncated, if any.

    Args:
        count: how many.
        noun: what each is, such as text or sentence.
        max_length: the most tokens of an input.
    """
    if count:
        say(f"note: cut {_counted(count, noun)} longer than {max_length} tokens; --strict refuses such {noun}s")


def _say_left_out(records: Records) -> None:
    if records.skipped and records.used:
        skipped = _counted(records.skipped, "input")
        say(f"note: skipped {skipped} that could not be used; the first is {records.first_skipped}")
    if records.blanks:
        say(f"note: skipped {_counted(records.blanks, 'blank line')}")
    if records.plain_json is not None:
        say(
            f"note: {records.place(records.plain_json)} is a JSON object and was read as plain text; "
            "--field NAME reads a field of each object"
        )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def say(text: str) -> None:
    """Print one line to standard error."""
    print(one_line(text), file=sys.stderr, flush=True)


def complain(error: Exception) -> None:
    """Print an error as one line to standard error."""
    say(f"error: {spelled(str(error))}")
