"""JSON that is checked: built into dataclasses, saying by name what does not fit, and sealed by its own hash."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from triform.runtime.printable import quoted


class Mismatch(Exception):
    """Where and how the JSON differs from the dataclasses; its message starts with the key."""


# Stands for the digits of a file's hash while it is computed: SHA-256 of the file with zeros in their place.
_BLANK = "0" * 64


def build(kind: Any, value: Any, where: str = "") -> Any:
    """Turn plain JSON into `kind`, a dataclass, a container, a union or a plain type.

    Keys that `kind` does not have are ignored. Numbers are finite: JSON has no others, and Python's reader does.

    Args:
        kind: what to build, as a type annotation.
        value: what `json.loads` gave.
        where: the key that leads here, for messages.

    Raises:
        Mismatch: a key is missing or a value is of another type.
    """
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise Mismatch(f"{where} must be an object")
        inner = typing.get_args(kind)[1]
        return {key: build(inner, item, f"{where}.{key}") for key, item in value.items()}
    if origin is list:
        if not isinstance(value, list):
            raise Mismatch(f"{where} must be a list")
        inner = typing.get_args(kind)[0]
        return [build(inner, item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is Literal:
        return _build_word(typing.get_args(kind), value, where)
    # `Literal[…] | None` is of the older kind of union.
    if origin in (types.UnionType, typing.Union):
        return _build_union(typing.get_args(kind), value, where)
    return _build_plain(kind, value, where)


def _build_word(words: tuple[str, ...], value: Any, where: str) -> str:
    if not isinstance(value, str) or value not in words:
        raise Mismatch(f"{where} must be {' or '.join(words)}, not {quoted(value)}")
    return value


def _build_plain(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise Mismatch(f"{where} is too large a number") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise Mismatch(f"{where} must be a finite number, not {value}")
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise Mismatch(f"{where} must be a {kind.__name__}, not {quoted(value)}")
    return value


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise Mismatch(f"{where} must be an object")
    hints = typing.get_type_hints(kind)
    arguments = {}
    for item in dataclasses.fields(kind):
        name = f"{where}.{item.name}" if where else item.name
        if item.name in value:
            arguments[item.name] = build(hints[item.name], value[item.name], name)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise Mismatch(f"the key {name} is missing")
    return kind(**arguments)


def _build_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    choices = [kind for kind in kinds if kind is not type(None)]
    for kind in choices[:-1]:
        try:
            return build(kind, value, where)
        except Mismatch:
            continue
    return build(choices[-1], value, where)


def sealed(content: Mapping[str, Any], key: str) -> str:
    """The text of a JSON file with `content` and, under `key`, the file's own hash in hexadecimal."""
    blank = json.dumps({**content, key: _BLANK}, indent=2, ensure_ascii=False) + "\n"
    before, _, after = blank.rpartition(_BLANK)
    return before + hashlib.sha256(blank.encode()).hexdigest() + after


def is_whole(data: bytes, checksum: str) -> bool:
    """Whether `checksum` is the hash of the bytes of a file, and occurs in them exactly once."""
    written = f'"{checksum}"'.encode()
    blank = data.replace(written, f'"{_BLANK}"'.encode())
    return data.count(written) == 1 and hashlib.sha256(blank).hexdigest() == checksum
