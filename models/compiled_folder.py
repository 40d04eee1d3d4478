"""Removes the empty folder that PyTorch makes for what it compiles, as soon as its compiler is imported."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# Where PyTorch keeps what it compiles, by its documentation; it sets this itself when it makes the folder.
_COMPILED = "TORCHINDUCTOR_CACHE_DIR"


@contextmanager
def without_compiled_folder() -> Iterator[None]:
    """Leave no such folder behind if there was none before, and nothing is in it.

    An export compiles nothing. A program that does finds its folder where it always is: PyTorch makes it again whenever
    it asks for it, and names it in the environment. A folder that the program or its user has named stays.
    """
    if _COMPILED in os.environ:
        yield
        return
    before = {path.name for path in Path(tempfile.gettempdir()).glob("torchinductor_*")}
    try:
        yield
    finally:
        # Named in the environment it would pass for the user's at the next export.
        made = Path(os.environ.pop(_COMPILED, ""))
        if made.name.startswith("torchinductor_") and made.name not in before:
            # One that holds something is not removed.
            with suppress(OSError):
                made.rmdir()
