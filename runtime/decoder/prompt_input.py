"""The prompt of a decoder: a text or messages, and the inputs of its chat template."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

from triform.runtime.decoder.chat_template import Message
from triform.runtime.errors import InputError, option
from triform.runtime.text.checks import invalid_at

Prompt = str | Sequence[Message]
Tools = Sequence[Mapping[str, Any]]
# Variables that `render_chat` or Jinja sets.
_RESERVED = ("messages", "tools", "add_generation_prompt", "self")


class PromptOptions(TypedDict, total=False):
    """Keyword arguments that may accompany a prompt; see `PromptInput`."""

    system: str | None
    raw: bool
    tools: Tools | None
    template: str | None
    template_vars: Mapping[str, Any] | None
    prefill: str | None


@dataclass(frozen=True)
class PromptInput:
    """A prompt with everything that accompanies it.

    Attributes:
        content: a text, or messages with "role" and "content". With a chat template, a text is the user's message.
            If the last message has the role "assistant", the model continues it.
        system: a system message to put first; needs a chat template.
        raw: encode the text as it is, without the chat template.
        tools: JSON schemas of functions that the model may call; they need a chat template that supports tools.
        template: the name of the chat template to use, if the bundle has several; None for "tool_use" if there are
            tools and such a template, else "default".
        template_vars: values of the template's own variables by name, such as ``{"enable_thinking": False}`` or
            ``{"documents": […]}``; they must be JSON values.
        prefill: the beginning of the answer; the model continues it.

    Raises:
        InputError: a template variable has a reserved or invalid name, or a value that is not JSON; `prefill` is not a
            str or not valid Unicode.
    """

    content: Prompt
    system: str | None = None
    raw: bool = False
    tools: Tools | None = None
    template: str | None = None
    template_vars: Mapping[str, Any] | None = None
    prefill: str | None = None

    def __post_init__(self) -> None:
        for name, value in (self.template_vars or {}).items():
            check_template_var(name, value)
        if not isinstance(self.prefill, str | None):
            raise InputError(f"{option('prefill')} must be a text, not {self.prefill!r:.60}")
        if self.prefill is not None:
            check_unicode(self.prefill)

    def needs_template(self) -> str | None:
        """The first input that needs a chat template, as the beginning of an error message; None if there is none."""
        needs = {
            "a system message needs": self.system,
            "tools need": self.tools,
            f"{option('template')} needs": self.template,
            f"{option('template_vars')} needs": self.template_vars or None,
            f"{option('prefill')} needs": self.prefill,
        }
        return next((what for what, value in needs.items() if value is not None), None)

    def messages(self) -> list[Message]:
        """The messages, with the system message first and the prefill last.

        Raises:
            InputError: the prompt is empty, a message is invalid, or both `prefill` and the last message begin the
                answer.
        """
        content = self.content
        if not isinstance(content, Iterable) or isinstance(content, bytes | Mapping):
            raise InputError(f"the prompt must be a text or messages, not {content!r:.60}")
        messages: list[Message] = [{"role": "user", "content": content}] if isinstance(content, str) else list(content)
        if not messages or (isinstance(content, str) and not content.strip()):
            raise InputError("the prompt is empty")
        for index, message in enumerate(messages):
            if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
                raise InputError(
                    f"message {index + 1} of the prompt must have a role and a content, not {message!r:.60}"
                )
            if isinstance(message.get("content"), str):
                check_unicode(message["content"])
        if self.system is not None:
            messages.insert(0, {"role": "system", "content": self.system})
        if self.prefill is not None:
            if messages[-1]["role"] == "assistant":
                raise InputError(
                    f"the last message is the assistant's, which the model continues; leave {option('prefill')} out"
                )
            messages.append({"role": "assistant", "content": self.prefill})
        return messages


def check_template_var(name: object, value: object) -> None:
    """Check the name and value of a template variable.

    Raises:
        InputError: the name is reserved or not an identifier, or the value is not JSON.
    """
    variable = f"{option('template_vars')} {name!r:.60}"
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"{variable} is not the name of a variable")
    if name in _RESERVED:
        raise InputError(f"{variable} cannot be set; reserved names are {', '.join(_RESERVED)}")
    if not _is_json(value):
        raise InputError(f"{variable} must be a string, a number, true, false, null, or a list or object of these")


def check_unicode(text: str) -> None:
    """Check that a prompt is valid Unicode.

    Raises:
        InputError: it has a lone surrogate, or is no text.
    """
    if not isinstance(text, str):
        raise InputError(f"the prompt must be a text, not {text!r:.60}")
    place = invalid_at(text)
    if place is not None:
        raise InputError(f"the prompt is not valid Unicode text at character {place}")


def _is_json(value: object) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    return (
        value is None or (isinstance(value, str) and invalid_at(value) is None) or isinstance(value, bool | int | float)
    )
