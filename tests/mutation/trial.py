"""Runs tests in a copy of the repository, in processes that have the large packages imported already."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from multiprocessing.connection import Connection
from pathlib import Path

from tests.mutation.exports import keep_exports
from tests.mutation.reached import Functions, called

# What takes seconds to import, and is never changed.
_LARGE = ("torch", "torch.onnx", "transformers", "transformers.models.llama.modeling_llama", "onnx", "onnxscript",
          "onnxruntime", "onnx_ir", "safetensors.torch", "hypothesis", "pytest", "scipy.special")  # fmt: skip
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([*_LARGE])


@dataclass(frozen=True)
class Outcome:
    """How tests ended.

    Attributes:
        failed: the id of the first test that failed, or of a file that could not be imported; None if there is none.
        in_time: whether they ended by themselves.
        functions: what they called, if that was looked at; complete if they passed.
        seconds: of processor time that they took; 0 where they did not end by themselves.
    """

    failed: str | None
    in_time: bool
    functions: Functions = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether all tests passed."""
        return self.in_time and self.failed is None


@dataclass(frozen=True)
class Exports:
    """Where exports come from.

    Attributes:
        clean: a copy of the repository, without changes, that makes them.
        kept: the folder that keeps them.
    """

    clean: Path
    kept: Path


def run_tests(
    place: Path, tests: Sequence[str], seconds: float, exports: Exports | None, look: bool = False
) -> Outcome:
    """Run tests until the first fails.

    Args:
        place: a copy of the repository, whose files are imported.
        tests: files of tests, or ids of tests, from `place`.
        seconds: of processor time that they may take, twice as many where it is looked at what they call.
        exports: where exports come from; from the code in `place` when None.
        look: whether to look what they call, which takes up to as long again.
    """
    seconds *= 1 + look
    ours, theirs = _PROCESSES.Pipe(duplex=False)
    process = _PROCESSES.Process(target=_run, args=(place, list(tests), ceil(seconds), exports, look, theirs))
    process.start()
    theirs.close()
    try:
        # On a busy machine the time of a clock says little; it is for tests that wait for ever.
        if not ours.poll(10 * seconds):
            return Outcome(None, False)
        try:
            failed, functions, took = ours.recv()
            return Outcome(failed, True, functions, took)
        except EOFError:
            process.join()
            if process.exitcode == -signal.SIGXCPU:
                return Outcome(None, False)
            # It crashed, which no test lets it do.
            return Outcome(tests[0], True)
    finally:
        # What the tests started goes with them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()


class _Failures:
    """Remembers the first failure."""

    first: str | None = None

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.first = self.first or report.nodeid

    def pytest_collectreport(self, report) -> None:
        if report.failed:
            self.first = self.first or report.nodeid


def _run(place: Path, tests: list[str], seconds: int, exports: Exports | None, look: bool, results: Connection) -> None:
    os.setsid()
    before = time.process_time()
    # The time of the process that it is forked from does not count.
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
    os.chdir(place)
    os.environ["PYTHONPATH"] = str(place / "src")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "triform")]:
        del sys.modules[name]
    failures, functions = _Failures(), Functions()
    try:
        if exports is not None:
            keep_exports(exports.clean, exports.kept, place)
        with called(place) if look else contextlib.nullcontext(Functions()) as functions:
            code = _pytest(place, tests, failures)
    except BaseException:
        # The change is in a line that an import runs.
        code = 1
    # An error before the first test, such as in a conftest.py, has no report.
    took = time.process_time() - before
    results.send((failures.first or (tests[0] if code else None), functions, took))


def _pytest(place: Path, tests: list[str], failures: _Failures) -> int:
    import pytest

    sys.path[:0] = [str(place / "src"), str(place)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        # pytest's plugins are among what was imported early.
        options = ["-n0", "-x", "-q", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
        return pytest.main([*options, *tests], plugins=[failures])
