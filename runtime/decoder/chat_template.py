"""Messages become a prompt by a model's chat template, as transformers does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from triform.runtime.bundle.text_info import MINIJINJA
from triform.runtime.decoder.templates.engines import renderer
from triform.runtime.decoder.templates.functions import reason_of
from triform.runtime.errors import InputError, option

Message = Mapping[str, Any]

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
    engine: str = MINIJINJA,
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
        engine: one of `TEMPLATE_ENGINES`.

    Raises:
        InputError: the template refuses the messages or cannot be rendered.
        UnsupportedError: the engine is not installed.
    """
    render = renderer(engine)
    shown = [_with_reasoning(_without_none(_plain(message))) for message in messages]
    if continue_final:
        content = _mark_end(shown[-1], template)
    try:
        # transformers always passes tools and documents; a template may compare them with none without asking whether
        # they exist.
        text = render(
            template,
            {
                "documents": None,
                **_plain(variables),
                "messages": shown,
                "tools": _plain(tools),
                "add_generation_prompt": add_generation_prompt and not continue_final,
            },
        )
    except Exception as error:  # what a template raises through a filter or a function arrives as it is
        raise InputError(
            f"the chat template refuses these messages: {reason_of(error)}; {option('raw')} bypasses it"
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
