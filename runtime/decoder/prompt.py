"""Turns a prompt, a text or messages, into the token ids that a model is fed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from triform.runtime.bundle.folder import Bundle
from triform.runtime.decoder.chat_template import Message, render_chat
from triform.runtime.errors import BundleError, InputError, option
from triform.runtime.text.tokenizer import Tokenizer
from triform.runtime.text.unicode_check import invalid_at

Prompt = str | Sequence[Message]
Tools = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PromptInput:
    """Everything that a model is prompted with.

    Attributes:
        content: a text, or messages with "role" and "content". With a chat template a text is the user's message.
        system: a system message to put first; needs a chat template.
        raw: take the text as it is, without the template.
        tools: JSON schemas of functions that the model may call; need a chat template that knows of tools.
    """

    content: Prompt
    system: str | None = None
    raw: bool = False
    tools: Tools | None = None


class PromptEncoder:
    """The bundle's tokenizer and chat template together. The template is read when a prompt first needs it."""

    def __init__(self, bundle: Bundle, tokenizer: Tokenizer) -> None:
        self._bundle = bundle
        self._tokenizer = tokenizer
        self._template: str | None = None

    def prompt_ids(self, prompt: PromptInput) -> list[int]:
        """Token ids of a prompt, at least one.

        Args:
            prompt: see `PromptInput`.

        Raises:
            InputError: the prompt is empty, is no text or messages, or something needs a template that is not there.
        """
        has_template = self._bundle.tokenizer.chat_template is not None
        if isinstance(prompt.content, str) and (prompt.raw or not has_template):
            for what, given in (("a system message needs", prompt.system), ("tools need", prompt.tools)):
                if given is not None:
                    raise InputError(f"{what} a chat template; this bundle has none, or {option('raw')} was given")
            return self.text_ids(prompt.content)
        if prompt.raw:
            raise InputError(f"messages cannot be taken raw, only a text can; leave {option('raw')} out")
        if not has_template:
            raise InputError("messages need a chat template and this bundle has none; give a plain text")
        messages = _as_messages(prompt.content)
        if prompt.system is not None:
            messages.insert(0, {"role": "system", "content": prompt.system})
        template = self._read_template()
        _check_tools(prompt.tools, template)
        text = render_chat(template, messages, self._bundle.tokenizer.special, tools=prompt.tools)
        # The template has written the special tokens already.
        return self._encode(text, special=False)

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens the tokenizer puts around it.

        Raises:
            InputError: the text is empty.
        """
        if not text:
            raise InputError("the prompt is empty")
        return self._encode(text, special=True)

    def known(self, token: int) -> int:
        """The same token id.

        Raises:
            BundleError: the graph would read past its table of embeddings.
        """
        known = self._bundle.manifest.vocab_size
        if token >= known:
            raise BundleError(
                f"{self._bundle.folder} has a tokenizer that gives token {token} to a model that knows {known}; "
                "export the model again"
            )
        return token

    def _encode(self, text: str, *, special: bool) -> list[int]:
        _check_unicode(text)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        if not ids:
            raise InputError("the prompt is empty: it has no tokens")
        self.known(max(ids))
        return ids

    def _read_template(self) -> str:
        name = self._bundle.tokenizer.chat_template
        if self._template is None and name is not None:
            path = self._bundle.path(name)
            try:
                self._template = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise BundleError(f"{path} cannot be read ({error}); copy the bundle again") from None
        return self._template or ""


def _as_messages(prompt: Prompt) -> list[Message]:
    messages: list[Message] = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    if not messages or (isinstance(prompt, str) and not prompt.strip()):
        raise InputError("the prompt is empty")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise InputError(f"message {index + 1} of the prompt must have a role and a content, not {message!r:.60}")
        if isinstance(message.get("content"), str):
            _check_unicode(message["content"])
    return messages


def _check_tools(tools: Tools | None, template: str) -> None:
    for one in tools or ():
        if not isinstance(one, Mapping):
            raise InputError(f"tools must be JSON schemas of functions, which are objects, not {one!r:.60}")
    # A template that does not name them would leave them out, and nobody would know.
    if tools and "tools" not in template:
        raise InputError("this model's chat template knows of no tools; leave them out, or describe them in a message")


def _check_unicode(text: str) -> None:
    place = invalid_at(text)
    if place is not None:
        raise InputError(f"the prompt is not valid Unicode text at character {place}")
