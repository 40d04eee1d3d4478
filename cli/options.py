"""Small readers of option values that commands share."""

from __future__ import annotations

from collections.abc import Sequence

from triform.runtime.errors import InputError


def key_values(pairs: Sequence[str] | None) -> dict[str, str]:
    """Turn ["a=1", "b=2"] into a dictionary.

    Raises:
        InputError: an entry has no "=".
    """
    found = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise InputError(f"--provider-option wants KEY=VALUE, not {pair!r}")
        found[key] = value
    return found
