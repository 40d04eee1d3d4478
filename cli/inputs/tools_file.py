"""Reads the functions that a model may call from a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_tools(path: Path | None) -> list[dict[str, Any]] | None:
    """Read a JSON list of schemas, each an object; None without a file.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    from triform.cli.inputs.whole_text import read_text_file
    from triform.runtime.errors import InputError

    if path is None:
        return None
    try:
        tools = json.loads(read_text_file("list of --tools", path))
    except (ValueError, RecursionError):
        raise InputError(f"--tools: {path} is not JSON") from None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise InputError(f"--tools: {path} is not a list of objects, a JSON schema for each function")
    return tools
