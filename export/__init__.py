"""Turns a checkpoint into a bundle. Needs the export extra.

May import `triform.models` and `triform.runtime`. Read `pipeline.py` first; `forms/` holds one way a form.

A program that exports takes these names, each imported when it is used:

    from triform.export import ExportOptions, export

    export("my-model", "my-bundle", ExportOptions(quantize="int4"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triform.export.options import ExportOptions
    from triform.export.pipeline import export, plan
    from triform.export.report import Report

__all__ = ["ExportOptions", "Report", "export", "plan"]

_HOMES = {"ExportOptions": "options", "Report": "report", "export": "pipeline", "plan": "pipeline"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        from triform.models.compiled_folder import without_compiled_folder

        with without_compiled_folder():
            return getattr(import_module(f"triform.export.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'triform.export' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
