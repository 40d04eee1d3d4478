"""Writes answers as lines of a file or of standard output, each as soon as it is known."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from triform.cli.outputs.part_file import part_file
from triform.runtime.errors import InputError


@dataclass(frozen=True)
class AnswersFile:
    """Where answers go.

    Attributes:
        done: number of lines from an earlier run.
        last: the object in the last of them; None if there is none.
    """

    done: int
    last: dict[str, Any] | None
    _file: IO[bytes] | None

    def write(self, value: dict[str, Any]) -> None:
        """Write an object as a line of JSON, and flush it."""
        # ASCII, so that it means the same whatever a terminal's encoding is.
        self.write_line(json.dumps(value))

    def write_line(self, line: str) -> None:
        """Write an object that is JSON already, and flush it."""
        if self._file is None:
            print(line, flush=True)
            return
        self._file.write(line.encode() + b"\n")
        self._file.flush()

    def check_question(self, question: dict[str, Any]) -> None:
        """Check that the last answer of an earlier run belongs to the record in its place.

        Args:
            question: the fields of that record, which the answer repeats.

        Raises:
            InputError: it belongs to another record.
        """
        last = self.last or {}
        if any(name not in last or last[name] != value for name, value in question.items()):
            raise InputError(
                f"line {self.done} of the unfinished output answers something else than the input asks there; "
                "give the input that it was made from, or remove it"
            )


@contextmanager
def answers_file(output: Path | None, *, source: Path | None, resume: bool) -> Iterator[AnswersFile]:
    """Open the output for answers; a file gets its name when the context ends without an error.

    Args:
        output: the file; standard output when None.
        source: the file that the questions come from.
        resume: continue after the lines of an earlier run.

    Raises:
        InputError: see `part_file`; or there is no file to continue.
    """
    if output is None:
        if resume:
            raise InputError("--resume goes on with a file of answers: name it with --output")
        yield AnswersFile(0, None, None)
        return
    with part_file(output, source=source, resume=resume) as file:
        done, last = _whole_lines(file)
        yield AnswersFile(done, last, file)


def _whole_lines(file: IO[bytes]) -> tuple[int, dict[str, Any] | None]:
    """Remove an unfinished last line; return the number of lines, and the object in the last."""
    count, end, last = 0, 0, b""
    for line in file:
        if not line.endswith(b"\n"):
            break
        count, end, last = count + 1, end + len(line), line
    file.truncate(end)
    file.seek(0, os.SEEK_END)
    if not count:
        return 0, None
    try:
        value = json.loads(last)
    except ValueError:
        value = None
    return count, value if isinstance(value, dict) else None
