"""Which functions tests call: learnt while they run, and kept, so that mutations are tried on tests that reach them."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType

# Of each file of Python, from the root of the repository, the qualified names of its functions.
Functions = dict[str, list[str]]


@contextlib.contextmanager
def called(place: Path) -> Iterator[Functions]:
    """What is called inside this context, complete when it ends; processes that are started do not count.

    Args:
        place: a copy of the repository.
    """
    seen: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        seen.add((frame.f_code.co_filename, frame.f_code.co_qualname))

    found: Functions = {}
    before = sys.gettrace()
    threading.settrace(note)
    sys.settrace(note)
    try:
        yield found
    finally:
        sys.settrace(before)
        threading.settrace(before)  # type: ignore[arg-type]
        for name, function in sorted(seen):
            path = Path(name)
            if path.is_relative_to(place):
                # The package's modules lie in folders of the root that links lead to.
                inside = path.resolve().relative_to(place.resolve()).as_posix()
                if not inside.startswith("tests/"):
                    found.setdefault(inside, []).append(function)


class Reached:
    """What each file of tests is known to call."""

    def __init__(self, folder: Path) -> None:
        """Read what was kept, if anything.

        Args:
            folder: with a file of JSON for each file of tests; it is for the code as it is now.
        """
        self._folder = folder
        self._functions: dict[str, Functions] = {}
        for file in folder.glob("*.json"):
            test, functions = json.loads(file.read_text(encoding="utf-8"))
            self._functions[test] = functions

    def add(self, test: str, functions: Functions) -> None:
        """Keep what a file of tests calls, once all of its tests have passed."""
        if test not in self._functions:
            self._functions[test] = functions
            self._folder.mkdir(parents=True, exist_ok=True)
            file = self._folder / f"{len(self._functions)}.json"
            file.write_text(json.dumps([test, functions]), encoding="utf-8")

    def knows(self, test: str) -> bool:
        """Whether it is known what a file of tests calls."""
        return test in self._functions

    def calls(self, test: str, path: Path, functions: Iterable[str]) -> bool:
        """Whether a file of tests calls one of these functions of a file."""
        return not set(functions).isdisjoint(self._functions.get(test, {}).get(path.as_posix(), []))
