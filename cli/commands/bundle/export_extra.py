"""Checks that the packages for exporting are installed."""

from __future__ import annotations


def check_installed() -> None:
    """Raise when a package that only exporting needs is missing."""
    from importlib.util import find_spec

    from triform.runtime.extras import missing_extra

    missing = [name for name in ("torch", "transformers", "onnxscript", "optimum") if find_spec(name) is None]
    if missing:
        # On a device all of them are missing; PyTorch stands for all.
        needed = "PyTorch" if "torch" in missing else ", ".join(missing)
        raise missing_extra(f"exporting needs {needed}", "export")
