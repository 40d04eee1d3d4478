"""Renders messages as a prompt with a model's chat template, as transformers does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from triform.runtime.bundle.text_info import MINIJINJA
from triform.runtime.decoder.templates.engines import renderer
from triform.runtime.decoder.templates.functions import reason_of
from triform.runtime.errors import InputError, OutOfMemoryError, is_out_of_memory, option, pass_on

Message = Mapping[str, Any]

# Appended to the message to continue while it is rendered, to find its end in the prompt.
_MARK = "CONTINUE_FINAL_MESSAGE_TAG "
# The keys of a message that may hold the model's reasoning. Templates read one of the first two, so transformers copies
# the value to both.
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
    """Turn messages into a prompt in the format that the model was trained on.

    Args:
        template: Jinja source, as in a tokenizer's `chat_template`.
        messages: at least one, each with "role" and "content". The template works on a copy.
        variables: values of the template's other variables by name: special tokens (bos_token, eos_token, …) and the
            template's own.
        add_generation_prompt: end with the opening of the assistant's turn.
        continue_final: end within the last message, so that the model continues it; replaces `add_generation_prompt`.
            If the template strips white space at the end of messages, it is stripped here, too.
        tools: JSON schemas of functions that the model may call, for templates that describe them.
        engine: one of `TEMPLATE_ENGINES`.

    Returns:
        the prompt, special tokens included.

    Raises:
        InputError: the template refuses the messages or cannot be rendered, or the last message cannot be continued.
        UnsupportedError: the engine is not installed.
        OutOfMemoryError: it does not fit into memory.
    """
    render = renderer(engine)
    copies = [_with_reasoning(_without_none(_plain(message))) for message in messages]
    if continue_final:
        content = _mark_end(copies[-1], template)
    try:
        # transformers always passes tools and documents, so templates compare them with none without a check whether
        # they are defined.
        text = render(
            template,
            {
                "documents": None,
                **_plain(variables),
                "messages": copies,
                "tools": _plain(tools),
                "add_generation_prompt": add_generation_prompt and not continue_final,
            },
        )
    except Exception as error:  # a filter or function that a template calls can raise anything
        pass_on(error)
        if isinstance(error, ImportError) and is_out_of_memory(error):
            raise OutOfMemoryError(f"what renders the chat template does not fit into memory ({error})") from error
        raise InputError(
            f"the chat template refuses these messages: {reason_of(error)}; {option('raw')} bypasses it"
        ) from None
    return _until_mark(text, content) if continue_final else text


def _mark_end(message: dict[str, Any], template: str) -> str:
    """Append the mark to a message's text, or to the last of its text parts; return the text without the mark."""
    content = message.get("content")
    parts = [part for part in content if "text" in part] if isinstance(content, list) else []
    if not isinstance(content, str) and not parts:
        raise InputError("the last message is the assistant's and has no text to continue; add a user message")
    if "content" not in template:
        raise InputError("the last message cannot be continued: the chat template does not read messages' content")
    if isinstance(content, str):
        message["content"] = content + _MARK
        return content
    text = str(parts[-1]["text"])
    parts[-1]["text"] = text + _MARK
    return text


def _until_mark(text: str, content: str) -> str:
    """The prompt up to the mark, cut as transformers does for ``continue_final_message``."""
    place = text.rfind(_MARK.strip())
    if place < 0 or content.strip() not in text:
        raise InputError("the last message cannot be continued: the chat template does not reproduce it literally")
    # If the mark's space is gone, the template strips white space at the end of messages.
    return text[:place] if text.startswith(_MARK, place) else text[:place].rstrip()


def _plain(value: Any) -> Any:
    """A deep copy of plain dicts and lists, so that a template cannot change its caller's values."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _without_none(message: dict[str, Any]) -> dict[str, Any]:
    # As transformers does: API clients send "content": null, which few templates expect.
    return {key: value for key, value in message.items() if value is not None}


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    reasoning = next((message[name] for name in _REASONING if message.get(name) is not None), None)
    if reasoning is None:
        return message
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}
