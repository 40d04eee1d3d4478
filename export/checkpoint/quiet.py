"""Silences transformers, whose errors become one line."""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings, log lines and progress bars of transformers: a user only needs the one line of an error."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings(), tempfile.TemporaryFile("w") as sink:
        warnings.simplefilter("ignore")
        with _stderr_to(sink):
            try:
                yield
            finally:
                logging.disable(level)


@contextmanager
def _stderr_to(sink: Any) -> Iterator[None]:
    """Silence tqdm bars, which the GGUF reader writes to sys.stderr directly."""
    saved, sys.stderr = sys.stderr, sink
    try:
        yield
    finally:
        sys.stderr = saved
