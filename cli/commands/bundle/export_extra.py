"""Checks that the packages for exporting are installed."""

from __future__ import annotations

# What the packages take by themselves, in bytes: of memory, and of a process's address space. Where there is less, they
# end the process before anything can be said.
_MEMORY, _ADDRESSES = 320 * 10**6, 720 * 10**6


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
    import sys

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
