"""Reads the JSON files of a checkpoint; a damaged one is an error of one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from triform.runtime.errors import ExportError


def read_object(path: Path) -> dict[str, Any]:
    """The object in a file.

    Raises:
        ExportError: the file cannot be read, or holds something else.
    """
    content = _read(path)
    if not isinstance(content, dict):
        raise ExportError(f"{path} must hold a JSON object")
    return content


def read_objects(path: Path) -> list[dict[str, Any]]:
    """The list of objects in a file.

    Raises:
        ExportError: the file cannot be read, or holds something else.
    """
    content = _read(path)
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise ExportError(f"{path} must hold a list of JSON objects")
    return content


def first_object(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """The object in the first of these files that exists; {} if none does.

    Raises:
        ExportError: as `read_object`.
    """
    return next((read_object(folder / name) for name in names if (folder / name).is_file()), {})


def content_of(path: Path) -> Any:
    """The JSON value in a file; None if the file does not exist or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from None
