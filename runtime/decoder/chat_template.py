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
# Stands behind what is to be continued while it is rendered.
_MARK = "CONTINUE_FINAL_MESSAGE_TAG "
# Names under which messages carry what a model thought; transformers copies whichever is given to the first two, which
# templates read.
_REASONING = ("reasoning_content", "thinking", "reasoning")


def render_chat(
    template: str,
    messages: Sequence[Message],
    variables: Mapping[str, Any],
    *,
    add_generation_prompt: bool = True,
    continue_final: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
) -> str:
    """Turn messages into the text the model was trained on.

    Args:
        template: Jinja source, as in a tokenizer's `chat_template`.
        messages: each with "role" and "content"; they are not changed, whatever the template does.
        variables: by name what the template may read besides: special strings (bos_token, eos_token, …) and variables
            of its own.
        add_generation_prompt: end with the opening of the assistant's turn.
        continue_final: end with the last message instead, where the model is to go on with it. White space at its end
            that the template removes is no part of it.
        tools: JSON schemas of functions that the model may call, for templates that tell it of them.

    Raises:
        InputError: the template refuses the messages or cannot be rendered.
    """
    # Jinja2 reads every line break as one character.
    source = template.replace("\r\n", "\n").replace("\r", "\n")
    source = _GENERATION.sub(lambda tag: f"{tag[1]}{tag[2] or ''}with{tag[3]}", source)
    shown = [_with_reasoning(_without_none(_plain(message))) for message in messages]
    if continue_final:
        content = _mark_end(shown[-1], template)
    try:
        # transformers always passes tools and documents; a template may compare them with none without asking whether
        # they exist.
        text: str = _environment().render_str(
            source,
            messages=shown,
            add_generation_prompt=add_generation_prompt and not continue_final,
            tools=_plain(tools),
            **{"documents": None, **_plain(variables)},
        )
    except Exception as error:  # what a template raises through a filter or a function arrives as it is
        raise InputError(
            f"the chat template refuses these messages: {_reason(error)}; {option('raw')} bypasses it"
        ) from None
    return _until_mark(text, content) if continue_final else text


def _mark_end(message: dict[str, Any], template: str) -> str:
    """Put a mark behind a message's text, or its last part that is a text; return what it was."""
    content = message.get("content")
    parts = [part for part in content if "text" in part] if isinstance(content, list) else []
    if not isinstance(content, str) and not parts:
        raise InputError("the last message is the assistant's and has no text to continue; add a user's message")
    if "content" not in template:
        raise InputError("the last message cannot be continued: the chat template reads no message's content")
    if isinstance(content, str):
        message["content"] = content + _MARK
        return content
    text = str(parts[-1]["text"])
    parts[-1]["text"] = text + _MARK
    return text


def _until_mark(text: str, content: str) -> str:
    """The text up to the mark, as transformers cuts it for ``continue_final_message``."""
    place = text.rfind(_MARK.strip())
    if place < 0 or content.strip() not in text:
        raise InputError("the last message cannot be continued: the chat template does not show it as it is")
    # A template that removed the mark's space removes white space at the end of messages.
    return text[:place] if text.startswith(_MARK, place) else text[:place].rstrip()


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


def _without_none(message: dict[str, Any]) -> dict[str, Any]:
    # As transformers does: programs that talk to servers write "content": null, and few templates expect it.
    return {key: value for key, value in message.items() if value is not None}


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
