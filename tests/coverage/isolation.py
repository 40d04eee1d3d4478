"""Runs one attempt in a process of its own, with limits of time and memory, so that none can end the sweep."""

from __future__ import annotations

import multiprocessing
import resource
import shutil
import tempfile
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from tests.coverage.attempt import attempt
from tests.coverage.quantized import Scheme
from tests.coverage.records import Record

# What a process that is out of memory, and is killed for it or not, ends with.
_NO_MEMORY = "out of memory"


def isolated_attempt(form: str, name: str, seconds: int, gigabytes: int, keep: Path | None, scheme: Scheme) -> Record:
    """What `attempt` says of a type; or that it took too long, too much memory, or ended its process.

    Args:
        form: see `attempt`.
        name: see `attempt`.
        seconds: that it may take.
        gigabytes: of memory that its process may take.
        keep: where to put the checkpoint and the bundle; None to delete them.
        scheme: see `attempt`.
    """
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="coverage-") as scratch:
        record = _run(form, name, seconds, gigabytes, Path(scratch), scheme)
        if keep is not None:
            shutil.copytree(scratch, keep / f"{form}-{name}", dirs_exist_ok=True)
    return replace(record, seconds=round(time.monotonic() - start, 1))


def _run(form: str, name: str, seconds: int, gigabytes: int, scratch: Path, scheme: Scheme) -> Record:
    receiving, sending = multiprocessing.Pipe(duplex=False)
    # Forked, so that PyTorch and transformers are imported once for all.
    process = multiprocessing.get_context("fork").Process(
        target=_send_record, args=(sending, form, name, gigabytes, scratch, scheme)
    )
    process.start()
    sending.close()
    try:
        if receiving.poll(seconds):
            received: Record = receiving.recv()
            return received
        return Record(form, name, "timeout", f"it takes more than {seconds} seconds")
    except EOFError:
        process.join()
        killed = process.exitcode == -9
        return Record(form, name, _NO_MEMORY if killed else "internal error", f"its process ends: {process.exitcode}")
    finally:
        process.kill()
        process.join()


def _send_record(pipe: Connection, form: str, name: str, gigabytes: int, scratch: Path, scheme: Scheme) -> None:
    limit = gigabytes << 30
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        record = attempt(form, name, scratch, scheme)
    except MemoryError:
        record = Record(form, name, _NO_MEMORY, f"it takes more than {gigabytes} GB")
    pipe.send(record)
    pipe.close()
