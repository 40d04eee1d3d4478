"""Checks that the packages for exporting are installed, and removes what they leave."""

from __future__ import annotations

import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# Where PyTorch keeps what it compiles, by its documentation.
_COMPILED = "TORCHINDUCTOR_CACHE_DIR"
# What the packages take by themselves, in bytes: of memory, and of a process's address space. Where there is less, they
# end the process before anything can be said.
_MEMORY, _ADDRESSES = 320 * 10**6, 720 * 10**6


@contextmanager
def compiled_elsewhere() -> Iterator[None]:
    """Remove at the end the folder that PyTorch makes for what it compiles as soon as it is imported.

    An export compiles nothing, so it would stay behind empty. A folder that the user has named stays.
    """
    if _COMPILED in os.environ:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="triform-", ignore_cleanup_errors=True) as folder:
        os.environ[_COMPILED] = folder
        try:
            yield
        finally:
            del os.environ[_COMPILED]


@contextmanager
def kept_for_good() -> Iterator[None]:
    """Import in the block what stays until the process ends, and is never looked through for garbage.

    PyTorch and what it needs are a million objects, through which Python would look several times while they are made,
    and again while a model is traced.
    """
    if "torch" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def check_installed() -> None:
    """Raise when a package that only exporting needs is missing, or when there is no memory to load them."""
    from importlib.util import find_spec

    from triform.runtime.extras import missing_extra

    missing = [name for name in ("torch", "transformers", "onnxscript", "optimum") if find_spec(name) is None]
    if missing:
        # On a device all of them are missing; PyTorch stands for all.
        needed = "PyTorch" if "torch" in missing else ", ".join(missing)
        raise missing_extra(f"exporting needs {needed}", "export")
    _check_memory()


def _check_memory() -> None:
    from triform.runtime.errors import OutOfMemoryError
    from triform.runtime.machine.memory import address_space_left, available_memory

    if "torch" in sys.modules:
        return
    for left, needed, what in (
        (address_space_left(), _ADDRESSES, "address space (ulimit -v)"),
        (available_memory(), _MEMORY, "memory"),
    ):
        if left is not None and left < needed:
            raise OutOfMemoryError(
                f"PyTorch and transformers do not fit into memory: they take {needed // 10**6} MB of {what}, and "
                f"{left // 10**6} MB are left; free some, or use a larger machine"
            )
