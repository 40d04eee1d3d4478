"""Chat templates, rendered by minijinja as transformers renders them with Jinja2."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from triform.runtime.errors import InputError

Message = Mapping[str, Any]


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
    from minijinja import Environment, TemplateError

    environment = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        pycompat=True,
        auto_escape_callback=_no_escape,
    )
    environment.add_global("raise_exception", _raise_exception)
    environment.add_global("strftime_now", _strftime_now)
    environment.add_filter("tojson", _tojson)
    try:
        return environment.render_str(
            template, messages=list(messages), add_generation_prompt=add_generation_prompt, **special
        )
    except (_Refusal, TemplateError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"the chat template refuses these messages: {reason}; --raw bypasses it") from None


class _Refusal(Exception):
    """Raised by a template through raise_exception."""


def _raise_exception(message: str) -> None:
    raise _Refusal(message)


def _strftime_now(form: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(form)


def _tojson(value: Any, indent: int | None = None, **_: Any) -> str:
    # Jinja's own tojson escapes for HTML; transformers replaces it by plain JSON.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _no_escape(_: str) -> bool:
    return False
