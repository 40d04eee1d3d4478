"""Chat templates, rendered by minijinja as transformers renders them with Jinja2."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from triform.runtime.errors import InputError

Message = Mapping[str, Any]

# Marks what an assistant said, for training; transformers renders what is inside. minijinja has no such statement, but
# a `with` of the same shape has the same scope and whitespace control.
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")
# Steps a template may take: two thousand messages take some hundred thousand; a template that never ends is stopped.
_FUEL = 50_000_000


def render_chat(
    template: str, messages: Sequence[Message], special: Mapping[str, str], *, add_generation_prompt: bool = True
) -> str:
    """Turn messages into the text the model was trained on.

    Args:
        template: Jinja source, as in a tokenizer's `chat_template`.
        messages: each with "role" and "content".
        special: special strings by name (bos_token, eos_token, …), visible to the template.
        add_generation_prompt: end with the opening of the assistant's turn.

    Raises:
        InputError: the template refuses the messages or cannot be rendered.
    """
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
    source = _GENERATION.sub(lambda tag: f"{tag[1]}{tag[2] or ''}with{tag[3]}", template)
    # transformers always passes these two; a template may compare them with none without asking whether they exist.
    context = {"tools": None, "documents": None, **special}
    try:
        return environment.render_str(
            source, messages=list(messages), add_generation_prompt=add_generation_prompt, **context
        )
    except Exception as error:  # what a template raises through a filter or a function arrives as it is
        raise InputError(f"the chat template refuses these messages: {_reason(error)}; --raw bypasses it") from None


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


def _no_escape(_: str) -> bool:
    return False
