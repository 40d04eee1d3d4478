"""Shows and changes generation options as text, ``temperature=0.7``, during a chat."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_origin

from triform.cli.arguments.generation import CONTEXT, DECODER, changed_options
from triform.runtime.errors import InputError

if TYPE_CHECKING:
    from triform.runtime.generation.options.generation import GenerationOptions

_ARGUMENTS = {argument.name: argument for argument in (*DECODER, *CONTEXT)}
# The most characters shown of a value.
_SHOWN = 60


def changed_values(options: GenerationOptions) -> str:
    """The options that differ from the defaults, as they would be typed; "" if none does."""
    from triform.runtime.generation.options.generation import GenerationOptions

    values, bare = dict(_values(options)), dict(_values(GenerationOptions()))
    return " ".join(f"{name}={_shown(value)}" for name, value in values.items() if value != bare[name])


def with_changes(options: GenerationOptions, text: str) -> GenerationOptions:
    """The options with some of them changed.

    Args:
        options: before the change.
        text: ``name=value`` by name as in Python or on the command line, with spaces between them and quotes where a
            shell would need some; nothing behind ``=`` is back to the model's own value.

    Raises:
        InputError: a name is unknown, or a value cannot be read, is out of range, or contradicts another.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise InputError(f"/params cannot be read: {str(error).lower()}") from None
    changes: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        name = key.removeprefix("--").replace("-", "_")
        if not equals or name not in _ARGUMENTS:
            known = "must be NAME=VALUE, not" if not equals else "has no"
            raise InputError(f"/params {known} {word if not equals else key!r}; `triform chat --help` lists the names")
        parsed = _value(name, value)
        several = isinstance(parsed, list) and isinstance(changes.get(name), list)
        changes[name] = [*changes[name], *parsed] if several else parsed
    return changed_options(options, changes)


def _value(name: str, text: str) -> Any:
    kind = _ARGUMENTS[name].kind
    if not text:
        return None
    if get_origin(kind) is list:
        return [text]
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            raise InputError(f"{name} must be a {'whole ' * (kind is int)}number, not {text!r}") from None
    return Path(text).expanduser() if kind is Path else text


def _values(options: GenerationOptions) -> Iterator[tuple[str, Any]]:
    groups = (options, options.truncation, options.penalties, options.constraints)
    for name in _ARGUMENTS:
        yield name, next(getattr(group, name) for group in groups if hasattr(group, name))


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        value = ",".join(f"{key}={item}" for key, item in value.items())
    elif isinstance(value, tuple):
        value = ",".join(map(str, value))
    text = shlex.quote(" ".join(str(value).split()) or str(value).encode("unicode_escape").decode())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
