"""What the rows of an unfinished output were made from, so that a later run continues them and nothing else.

It stands beside OUTPUT.part: one line of JSON about the bundle and the options, then one line per input, a digest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from triform.runtime.errors import InputError, option

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record

Item = TypeVar("Item")

# Digits of a digest, and its line in bytes.
_DIGITS = 16
_LINE = _DIGITS + 1
# Above any first line, in bytes: options are digests too.
_LONGEST = 2**16


@dataclass(frozen=True)
class Run:
    """What the answers of a run depend on besides its inputs.

    Attributes:
        bundle: the folder of the model.
        options: the options that change answers, by the names of the command line's.
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
    """The inputs whose answers an output has."""

    def __init__(self, file: IO[bytes], unfinished: Path, done: int) -> None:
        """Continue a log behind its first line.

        Args:
            file: at the first digest.
            unfinished: the file with the answers.
            done: number of answers in it.
        """
        self._file = file
        self._unfinished = unfinished
        self._done = done

    def add(self, record: Record) -> None:
        """Note that the next answer belongs to a record; call it before the answer is written."""
        self._file.write(_digest_of(record) + b"\n")
        self._file.flush()

    def remaining(self, items: Iterable[Item], record_of: Callable[[Item], Record]) -> Iterator[Item]:
        """The items after those that an earlier run answered, which are compared with what it answered.

        Raises:
            InputError: the items are not those of the earlier run.
        """
        place = 0
        for place, item in enumerate(items, 1):
            if place > self._done:
                yield item
            elif self._file.read(_LINE) != _digest_of(record_of(item)) + b"\n":
                raise InputError(
                    f"{self._unfinished} has the result of another input in place {place}; "
                    "give the input of the earlier run, or delete that file"
                )
        if place < self._done:
            raise InputError(
                f"{self._unfinished} has {self._done} results, but the input has {place} records; "
                "give the input of the earlier run, or delete that file"
            )


def log_path(unfinished: Path) -> Path:
    """The log that stands beside an unfinished output."""
    return unfinished.with_name(unfinished.name + ".log")


@contextmanager
def run_log(run: Run, unfinished: Path, done: int) -> Iterator[RunLog]:
    """Open the log of an unfinished output, which this process has locked; a new one if it has no answers yet.

    Args:
        run: what is being run now.
        unfinished: the file with the answers.
        done: number of answers in it.

    Raises:
        InputError: the log is missing or damaged, or the earlier run had another bundle or other options.
    """
    path, digests = log_path(unfinished), run.digests()
    try:
        file = path.open("r+b" if done else "w+b")
    except FileNotFoundError:
        raise InputError(f"{unfinished} cannot be continued: {path} is missing; delete it to start again") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    with file:
        if done:
            start = file.readline(_LONGEST)
            _check_same(digests, _parse(start), unfinished)
            _check_length(file, start, done, unfinished)
        else:
            file.write(json.dumps(digests).encode() + b"\n")
            file.flush()
        yield RunLog(file, unfinished, done)


def _check_same(digests: Mapping[str, str], earlier: Mapping[str, Any], unfinished: Path) -> None:
    for name in sorted(digests.keys() | earlier.keys()):
        if digests.get(name) != earlier.get(name):
            what = "another bundle" if name == "bundle" else f"another {option(name)}"
            raise InputError(
                f"{unfinished} was made with {what}; repeat the command of the earlier run with --resume, "
                "or delete that file"
            )


def _check_length(file: IO[bytes], start: bytes, done: int, unfinished: Path) -> None:
    """Remove the inputs that a killed run noted but did not answer."""
    length = len(start) + done * _LINE
    if os.fstat(file.fileno()).st_size < length:
        raise InputError(f"{unfinished} cannot be continued: its log is damaged; delete it to start again")
    file.truncate(length)


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
