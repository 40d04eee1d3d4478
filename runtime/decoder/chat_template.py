"""Chat templates, rendered by minijinja as transformers renders them with Jinja2."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from triform.runtime.errors import InputError, option

Message = Mapping[str, Any]

# Marks what an assistant said, for training; transformers renders what is inside. minijinja has no such statement, but
# a `with` of the same shape has the same scope and whitespace control.
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")
# Steps a template may take: two thousand messages take some hundred thousand; a template that never ends is stopped.
_FUEL = 50_000_000
# Names under which messages carry what a model thought; transformers copies whichever is given to the first two, which
# templates read.
_REASONING = ("reasoning_content", "thinking", "reasoning")


def render_chat(
    template: str,
    messages: Sequence[Message],
    special: Mapping[str, str],
    *,
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """Turn messages into the text the model was trained on.

    Args:
        template: Jinja source, as in a tokenizer's `chat_template`.
        messages: each with "role" and "content"; they are not changed, whatever the template does.
        special: special strings by name (bos_token, eos_token, …), visible to the template.
        add_generation_prompt: end with the opening of the assistant's turn.
        tools: JSON schemas of functions that the model may call, for templates that tell it of them.

    Raises:
        InputError: the template refuses the messages or cannot be rendered.
    """
    # Jinja2 reads every line break as one character.
    source = template.replace("\r\n", "\n").replace("\r", "\n")
    source = _GENERATION.sub(lambda tag: f"{tag[1]}{tag[2] or ''}with{tag[3]}", source)
    try:
        # transformers always passes tools and documents; a template may compare them with none without asking whether
        # they exist.
        text: str = _environment().render_str(
            source,
            **special,
            messages=[_with_reasoning(_plain(message)) for message in messages],
            add_generation_prompt=add_generation_prompt,
            tools=_plain(tools),
            documents=None,
        )
    except Exception as error:  # what a template raises through a filter or a function arrives as it is
        raise InputError(
            f"the chat template refuses these messages: {_reason(error)}; {option('raw')} bypasses it"
        ) from None
    return text


def _environment() -> Any:
    """An environment with what transformers adds to Jinja2, and Jinja2's meaning where minijinja's is another."""
    from minijinja import Environment

    environment = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        pycompat=True,
        fuel=_FUEL,
        auto_escape_callback=_no_escape,
    )
    environment.add_global("raise_exception", _raise_exception)
    environment.add_global("strftime_now", _strftime_now)
    environment.add_filter("tojson", _tojson)
    environment.add_filter("int", _int)
    environment.add_filter("length", _length)
    environment.add_filter("count", _length)
    environment.add_test("sequence", lambda value: isinstance(value, str | Mapping | Sequence))
    # Jinja2's blocks of a template, which chat templates have none of.
    environment.add_global("self", {})
    return environment


def _plain(value: Any) -> Any:
    """A copy that a template may change: transformers lets none change what it was given."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    thought = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    if thought is None:
        return message
    return {"thinking": thought, **message, "reasoning_content": thought}


def _reason(error: Exception) -> str:
    cause = error.__cause__ or error.__context__
    if isinstance(cause, _Refusal):
        return " ".join(str(cause).split())
    return next(iter(str(error).splitlines()), type(error).__name__)


class _Refusal(Exception):
    """Raised by a template through raise_exception."""


def _raise_exception(message: str) -> None:
    raise _Refusal(message)


def _strftime_now(form: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(form)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own tojson escapes for HTML; transformers replaces it by plain JSON.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _int(value: Any, default: int = 0, base: int = 10) -> int:
    # minijinja's refuses what is no number, and Jinja2's gives the default.
    try:
        return int(value, base) if isinstance(value, str) else int(value)
    except (TypeError, ValueError):
        try:
            return int(float(value))
        except (TypeError, ValueError, OverflowError):
            return default


def _length(value: Any) -> int:
    # What is not defined arrives as None, and has no length in minijinja.
    return 0 if value is None else len(value)


def _no_escape(_: str) -> bool:
    return False
