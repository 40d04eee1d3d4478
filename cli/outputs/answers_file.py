"""Writes answers as lines of JSON, to a file that a later run can continue or to standard output."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from triform.cli.outputs.part_file import part_file, part_path
from triform.cli.outputs.run_log import Run, RunLog, run_log
from triform.runtime.errors import InputError

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record

_Item = TypeVar("_Item")


class AnswersFile:
    """The output for answers: a file with its log, or standard output."""

    def __init__(self, file: IO[bytes] | None, log: RunLog | None) -> None:
        """Write to a file and its log; to standard output if both are None."""
        self._file = file
        self._log = log

    def remaining(self, items: Iterable[_Item], record_of: Callable[[_Item], Record]) -> Iterator[_Item]:
        """The items whose answers are not in the file; see `RunLog.remaining`."""
        return iter(items) if self._log is None else self._log.remaining(items, record_of)

    def write(self, record: Record, value: dict[str, Any]) -> None:
        """Write the answer to a record as a line of JSON, and flush it."""
        # ASCII, which is the same in every encoding of a terminal.
        self.write_line(record, json.dumps(value))

    def write_line(self, record: Record, line: str) -> None:
        """Write a line of JSON, the answer to a record, and flush it."""
        if self._file is None or self._log is None:
            print(line, flush=True)
            return
        answer = line.encode() + b"\n"
        self._log.add(record, answer)
        self._file.write(answer)
        self._file.flush()


@contextmanager
def answers_file(output: Path | None, run: Run, *, source: Path | None, resume: bool) -> Iterator[AnswersFile]:
    """Open the output for answers; a file gets its name when the context ends without an error.

    Args:
        output: the file; standard output when None.
        run: what the answers depend on besides the inputs.
        source: the file that the inputs come from.
        resume: continue after the lines of an earlier run.

    Raises:
        InputError: see `part_file` and `run_log`; or there is no file to continue.
    """
    if output is None:
        if resume:
            raise InputError("--resume continues a file: name it with --output")
        yield AnswersFile(None, None)
        return
    with (
        part_file(output, source=source, bundle=run.bundle, resume=resume) as file,
        run_log(run, part_path(output), lambda: _whole_lines(file)) as log,
    ):
        yield AnswersFile(file, log)


def _whole_lines(file: IO[bytes]) -> Iterator[bytes]:
    """Read all lines, and then remove an unfinished last one."""
    end = 0
    for line in file:
        if not line.endswith(b"\n"):
            break
        yield line
        end += len(line)
    file.truncate(end)
    file.seek(0, os.SEEK_END)
