"""The log of an unfinished output: hashes of its bundle, options and inputs, so that only the same run continues it.

The file OUTPUT.part.log begins with a line of JSON: hashes of the bundle and the options. Each further line is the hash
of an input and that of its answer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from triform.runtime.errors import InputError, option

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record

_Item = TypeVar("_Item")


class AnotherRunError(InputError):
    """An unfinished output cannot be continued by this run."""


# The hexadecimal digits of a digest, and the bytes of a line with two.
_DIGITS = 16
_LINE = 2 * _DIGITS + 1
# More bytes than any first line has: options are stored as digests.
_LONGEST = 2**16


@dataclass(frozen=True)
class Run:
    """What the answers of a run depend on besides its inputs.

    Attributes:
        bundle: the folder of the bundle.
        options: the values of the options that change answers, by name as in Python.
    """

    bundle: Path
    options: Mapping[str, object]

    def digests(self) -> dict[str, str]:
        """A digest for the bundle and for each option that is not None, by name."""
        from triform.runtime.bundle.manifest import MANIFEST

        # The manifest has the checksums of the bundle's other files.
        manifest = (self.bundle / MANIFEST).read_bytes()
        return {"bundle": _digest(manifest)} | {
            name: _digest(repr(value).encode()) for name, value in sorted(self.options.items()) if value is not None
        }


class RunLog:
    """The digests of the inputs that an output has answers to, and of the answers."""

    def __init__(self, file: IO[bytes], unfinished: Path, done: int) -> None:
        """Continue a log after its first line.

        Args:
            file: the log, positioned after its first line.
            unfinished: the file with the answers.
            done: number of answers in it.
        """
        self._file = file
        self._unfinished = unfinished
        self._done = done

    def add(self, record: Record, answer: bytes) -> None:
        """Log the next answer and its record; call this before the answer is written."""
        self._file.write(_digest_of(record) + _digest(answer).encode() + b"\n")
        self._file.flush()

    def remaining(self, items: Iterable[_Item], record_of: Callable[[_Item], Record]) -> Iterator[_Item]:
        """The items that an earlier run did not answer, after a check that the first ones are those it answered.

        Args:
            items: all inputs.
            record_of: the record of an item.

        Raises:
            AnotherRunError: the first items are not those of the earlier run.
        """
        place = 0
        for place, item in enumerate(items, 1):
            if place > self._done:
                yield item
            elif self._file.read(_LINE)[:_DIGITS] != _digest_of(record_of(item)):
                raise AnotherRunError(
                    f"{self._unfinished} was made from another input: record {place} differs; "
                    "give the input of the earlier run, or delete that file"
                )
        if place < self._done:
            raise AnotherRunError(
                f"{self._unfinished} has {self._done} results, but the input has {place} records; "
                "give the input of the earlier run, or delete that file"
            )


def log_path(unfinished: Path) -> Path:
    """The path of the log of an unfinished output."""
    return unfinished.with_name(unfinished.name + ".log")


@contextmanager
def run_log(run: Run, unfinished: Path, answers: Callable[[], Iterable[bytes]]) -> Iterator[RunLog]:
    """Open the log of an unfinished output, which this process has locked; make a new log if it is empty.

    Args:
        run: the bundle and the options of this run.
        unfinished: the file with the answers.
        answers: reads all answers, and then removes an unfinished one at the end. Called after the check that the
            earlier run had the same options: how long an answer is may depend on them.

    Raises:
        InputError: the log cannot be written.
        AnotherRunError: it is missing, it or an answer is damaged, or the earlier run had another bundle or other
            options.
    """
    path, digests = log_path(unfinished), run.digests()
    begun = unfinished.stat().st_size > 0
    try:
        file = path.open("r+b" if begun else "w+b")
    except FileNotFoundError:
        raise AnotherRunError(
            f"{unfinished} cannot be continued: {path} is missing; delete it to start again"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    with file:
        done = 0
        if begun:
            start = file.readline(_LONGEST)
            _check_same(digests, _parse(start), unfinished)
            done = _check_answers(file, answers(), unfinished)
            file.seek(len(start))
            # A killed run may have logged an input that it did not answer.
            file.truncate(len(start) + done * _LINE)
        else:
            file.write(json.dumps(digests).encode() + b"\n")
            file.flush()
        yield RunLog(file, unfinished, done)


def difference(digests: Mapping[str, str], earlier: Mapping[str, Any]) -> str | None:
    """The first thing that differs between two runs, such as "another bundle"; None if they are the same."""
    for name in sorted(digests.keys() | earlier.keys()):
        if digests.get(name) != earlier.get(name):
            return "another bundle" if name == "bundle" else f"another {option(name)}"
    return None


def _check_same(digests: Mapping[str, str], earlier: Mapping[str, Any], unfinished: Path) -> None:
    what = difference(digests, earlier)
    if what is not None:
        raise AnotherRunError(
            f"{unfinished} was made with {what}; repeat the command of the earlier run with --resume, "
            "or delete that file"
        )


def _check_answers(file: IO[bytes], answers: Iterable[bytes], unfinished: Path) -> int:
    """Compare answers with the log, positioned after its first line; return how many there are."""
    done = 0
    for done, answer in enumerate(answers, 1):
        line = file.read(_LINE)
        if len(line) < _LINE or line[-1:] != b"\n":
            raise AnotherRunError(f"{unfinished} cannot be continued: its log is damaged; delete it to start again")
        if line[_DIGITS:-1] != _digest(answer).encode():
            raise AnotherRunError(
                f"{unfinished} is damaged: its result {done} is not what was written; delete it to start again"
            )
    return done


def _parse(line: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _digest_of(record: Record) -> bytes:
    return _digest(json.dumps([record.text, record.value, record.messages], sort_keys=True).encode()).encode()


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_DIGITS // 2).hexdigest()
