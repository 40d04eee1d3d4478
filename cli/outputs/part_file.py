"""A file that may be written over several runs: it is called OUTPUT.part until it is complete.

A run that fails, is stopped or is killed leaves the .part file and its log, and a later run can continue it. One
process at a time may write it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from triform.cli.inputs.whole_text import files_read
from triform.cli.outputs.notes import say
from triform.cli.outputs.run_log import AnotherRunError, log_path
from triform.runtime.bundle.outside import check_outside_bundles
from triform.runtime.errors import InputError
from triform.runtime.files import followed


@contextmanager
def part_file(output: Path, *, source: Path | None, bundle: Path, resume: bool) -> Iterator[IO[bytes]]:
    """Open OUTPUT.part to read and write from its beginning; it is renamed when the context ends without an error.

    Args:
        output: the final path of the file.
        source: the input file, which must not be `output`.
        bundle: the model's folder, which holds nothing but the model.
        resume: whether to continue the file of an earlier run.

    Raises:
        InputError: the file cannot be written, another process is writing it, or an earlier run left a file and
            `resume` is false.
    """
    if output.exists() and not output.is_file():
        raise InputError(f"{output} cannot be written: it is not a file")
    check_not_read(output, () if source is None else (source,), bundle)
    unfinished = part_path(output)
    with _named(output), locked_file(unfinished, output) as file:
        if os.fstat(file.fileno()).st_size and not resume:
            raise InputError(
                f"{unfinished} has the results of an unfinished run: continue it with --resume, or delete that file"
            )
        try:
            yield file
            file.flush()
        except AnotherRunError:
            raise
        except BaseException:
            _keep(file, unfinished)
            raise
        os.replace(unfinished, _written_to(output))
        log_path(unfinished).unlink(missing_ok=True)


def part_path(output: Path) -> Path:
    """The path of an output until it is complete: beside what it is a link to, if it is one."""
    target = _written_to(output)
    return target.with_name(target.name + ".part")


def _written_to(output: Path) -> Path:
    # Any other path stays as the user wrote it, for the messages.
    return followed(output) if output.is_symlink() else output


def check_not_read(output: Path, sources: Iterable[Path], bundle: Path | None) -> None:
    """Check that writing a file spoils nothing that the same command reads.

    Args:
        output: the file.
        sources: the command's input files.
        bundle: the model's folder, which holds no files but the model's.

    Raises:
        InputError: the file is one of the sources or of the texts that options read, by whatever name, or in a bundle.
    """
    if bundle is not None and followed(output).resolve().is_relative_to(bundle.resolve()):
        raise InputError(f"{output} cannot be written: it is in the folder of the bundle, which holds nothing else")
    check_outside_bundles(output)
    if not output.exists():
        return
    if any(source.exists() and output.samefile(source) for source in sources):
        raise InputError(f"{output} cannot be written: it is the input")
    if any(output.samefile(file) for file in files_read() if file.exists()):
        raise InputError(f"{output} cannot be written: this command reads it")


@contextmanager
def locked_file(path: Path, output: Path) -> Iterator[IO[bytes]]:
    """Open a file to read and write from its beginning, made if there is none; no other process may open it so.

    Args:
        path: the file.
        output: the final path of the file or folder that it is part of.

    Raises:
        InputError: it cannot be written, or another process has it open or has just removed it.
    """
    try:
        # No mode of open() creates a file without truncating it, and writes anywhere.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}") from None
    with file:
        try:
            _lock(file)
        except OSError:
            raise InputError(f"{output} is being written by another process; choose another --output") from None
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            # The other process ended between the two calls, and renamed or removed the file.
            raise InputError(f"{output} was just written by another process; choose another --output")
        yield file


def _lock(file: IO[bytes]) -> None:
    """Lock a file until it is closed, or raise OSError."""
    if sys.platform == "win32":
        import msvcrt

        # Far beyond the end, because Windows keeps other processes from locked bytes.
        file.seek(2**31 - 1)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _named(output: Path) -> Iterator[None]:
    """Put the output's name into errors that lack one: those of a full disk, which closing the file raises again."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(output)
        raise


def _keep(file: IO[bytes], unfinished: Path) -> None:
    """Keep what was written for the next run; remove an empty file."""
    try:
        file.flush()
        empty = os.fstat(file.fileno()).st_size == 0
    except OSError:
        empty = False
    if empty:
        unfinished.unlink(missing_ok=True)
        log_path(unfinished).unlink(missing_ok=True)
    else:
        say(f"note: the results so far are in {unfinished}; continue with --resume")
