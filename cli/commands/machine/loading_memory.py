"""Measures how much memory a bundle takes while it is loaded, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_CHILD = f"from {__name__} import print_loading; print_loading()"


@dataclass(frozen=True)
class Loading:
    """How a bundle was loaded.

    Attributes:
        peak: the most bytes that the process had; None where the system does not tell.
        problem: why it cannot be loaded, in one line; None if it can.
    """

    peak: int | None = None
    problem: str | None = None


def try_loading(folder: Path) -> Loading | None:
    """Load a bundle in a process of its own; None if that ended without an answer, as for want of memory."""
    command = [sys.executable, "-c", _CHILD, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    return None if done.returncode else Loading(**json.loads(done.stdout))


def print_loading() -> None:
    """Load the bundle that the command line names, and print what became of it as JSON."""
    from triform.runtime.errors import TriformError
    from triform.runtime.machine.memory import peak_memory
    from triform.runtime.opening import load

    with suppress(OSError):
        # If there is too little memory for it after all, Linux ends this process and no other.
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        load(sys.argv[1])
        print(json.dumps({"peak": peak_memory()}))
    except TriformError as error:
        print(json.dumps({"problem": str(error)}))
