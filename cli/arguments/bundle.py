"""Small readers of arguments and options that commands share."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from triform.runtime.errors import InputError


def template_vars(pairs: Sequence[str] | None) -> dict[str, Any] | None:
    """Turn ["enable_thinking=false", "date=today"] into a dictionary; values are JSON, or else text.

    Raises:
        InputError: an entry has no "=", or a name comes twice.
    """
    variables: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InputError(f"--template-var must be NAME=VALUE, not {pair!r:.60}")
        if key in variables:
            raise InputError(f"--template-var gives {key!r:.60} twice")
        variables[key] = _json_or_text(value)
    return variables or None


def _json_or_text(value: str) -> Any:
    try:
        # NaN and Infinity are not JSON, though Python reads them.
        return json.loads(value, parse_constant=lambda name: value)
    except (ValueError, RecursionError):
        return value


def at_least_one(option: str, value: int | None) -> None:
    """Check a count, unless it is None.

    Raises:
        InputError: it is less than 1.
    """
    if value is not None and value < 1:
        raise InputError(f"{option} must be at least 1, not {value}")


def default_bundle() -> str | None:
    """The bundle to use when none is named: the environment variable TRIFORM_BUNDLE."""
    return os.environ.get("TRIFORM_BUNDLE") or None


def bundle_and_prompt(first: str | None, second: str | None) -> tuple[Path, str | None]:
    """Decide which of two arguments are the bundle and the prompt.

    With a default bundle a single argument is the prompt, unless a folder of that name exists.

    Args:
        first: the first argument, if any.
        second: the second argument, if any.

    Returns:
        the bundle's folder, and the prompt if it was an argument.

    Raises:
        InputError: there is no bundle.
    """
    default = default_bundle()
    if default is None and first is None:
        raise InputError("no bundle: give its folder as the first argument, or set TRIFORM_BUNDLE")
    if first is None:
        return Path(default or ""), None
    if default is None or second is not None or _is_folder(first):
        return Path(first), second
    return Path(default), first


def bundle_and_texts(first: str | None, texts: Sequence[str] | None) -> tuple[Path, list[str]]:
    """Decide which of the arguments are the bundle and the texts.

    With a default bundle the first argument is a text, unless a folder of that name exists.

    Args:
        first: the first argument, if any.
        texts: the other arguments, if any.

    Returns:
        the bundle's folder, and the texts among the arguments.

    Raises:
        InputError: there is no bundle.
    """
    default = default_bundle()
    if default is None or first is None or _is_folder(first):
        return bundle_and_prompt(first, "")[0], list(texts or ())
    return Path(default), [first, *(texts or ())]


def _is_folder(name: str) -> bool:
    try:
        return Path(name).is_dir()
    except (OSError, ValueError):
        # It is too long for a file's name, or cannot be one: a prompt.
        return False
