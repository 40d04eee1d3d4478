"""Turns a prompt, a text or messages, into token ids."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress

from triform.runtime.bundle.folder import Bundle
from triform.runtime.decoder.chat_template import render_chat
from triform.runtime.decoder.prompt_input import Prompt, PromptInput, PromptOptions, Tools, check_unicode
from triform.runtime.decoder.templates.engines import start_engine
from triform.runtime.errors import BundleError, InputError, UnsupportedError, option
from triform.runtime.text.tokenizer import Tokenizer

__all__ = ["Prompt", "PromptEncoder", "PromptInput", "PromptOptions", "Tools"]


class PromptEncoder:
    """Encodes prompts with a bundle's tokenizer and chat templates. A template is read when a prompt first needs it."""

    def __init__(self, bundle: Bundle, tokenizer: Tokenizer) -> None:
        self._bundle = bundle
        self._tokenizer = tokenizer
        self._sources: dict[str, str] = {}
        if bundle.tokenizer.has_chat_template:
            with suppress(UnsupportedError):
                # Whoever renders a template hears of it.
                start_engine(bundle.tokenizer.template_engine)

    def prompt_ids(self, prompt: PromptInput) -> list[int]:
        """Token ids of a prompt, at least one.

        Args:
            prompt: see `PromptInput`.

        Raises:
            InputError: the prompt is empty, is not a text or messages, or needs a template that the bundle does not
                have; the template refuses it.
            BundleError: the template file cannot be read, or a token id is outside the model's vocabulary.
            UnsupportedError: the template needs Jinja2, which is not installed.
        """
        has_template = self._bundle.tokenizer.has_chat_template
        if isinstance(prompt.content, str) and (prompt.raw or not has_template):
            needs = prompt.needs_template()
            if needs is not None:
                raise InputError(f"{needs} a chat template; this bundle has none, or {option('raw')} was given")
            return self.text_ids(prompt.content)
        if prompt.raw:
            raise InputError(f"{option('raw')} is for a text, not for messages; leave it out")
        if not has_template:
            raise InputError("messages need a chat template and this bundle has none; give a plain text")
        messages, template = prompt.messages(), self._read_template(prompt)
        _check_tools(prompt.tools, template)
        text = render_chat(
            template,
            messages,
            {**self._bundle.tokenizer.special, **_template_vars(prompt, template)},
            continue_final=messages[-1]["role"] == "assistant",
            tools=prompt.tools,
            engine=self._bundle.tokenizer.template_engine,
        )
        # The template has added the special tokens already.
        return self._encode(text, special=False)

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens that the tokenizer adds.

        Raises:
            InputError: the text is empty or not valid Unicode.
            BundleError: a token id is outside the model's vocabulary.
        """
        if not text:
            raise InputError("the prompt is empty")
        return self._encode(text, special=True)

    def known(self, token: int) -> int:
        """Return a token id that is in the model's vocabulary.

        Raises:
            BundleError: it is not; the graph would read past its embedding table.
        """
        vocab_size = self._bundle.manifest.vocab_size
        if token >= vocab_size:
            raise BundleError(
                f"{self._bundle.folder}: the tokenizer gives the token id {token}, but the model's vocabulary has "
                f"{vocab_size} tokens; leave out of the text what it stands for"
            )
        return token

    def _encode(self, text: str, *, special: bool) -> list[int]:
        check_unicode(text)
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        if not ids:
            raise InputError("the prompt is empty: it has no tokens")
        self.known(max(ids))
        return ids

    def _read_template(self, prompt: PromptInput) -> str:
        """The source of the template that the prompt names, or of the one that transformers would choose."""
        info = self._bundle.tokenizer
        files = dict(info.chat_templates) | ({"default": info.chat_template} if info.chat_template is not None else {})
        names = ", ".join(sorted(files))
        if prompt.template is not None and prompt.template not in files:
            raise InputError(f"this bundle has no chat template {prompt.template!r:.60}; it has: {names}")
        name = prompt.template or ("tool_use" if prompt.tools is not None and "tool_use" in files else "default")
        if name not in files:
            raise InputError(f"this bundle has several chat templates; choose one with {option('template')}: {names}")
        if name not in self._sources:
            path = self._bundle.path(files[name])
            try:
                self._sources[name] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise BundleError(f"{path} cannot be read ({error}); copy the bundle again") from None
        return self._sources[name]


def _template_vars(prompt: PromptInput, template: str) -> Mapping[str, object]:
    """The prompt's template variables. One that the template does not read is refused, not silently ignored."""
    variables = prompt.template_vars or {}
    for name in variables:
        if not re.search(rf"\b{re.escape(name)}\b", template):
            raise InputError(
                f"this model's chat template does not use the variable {name}; "
                f"leave out {option('template_vars')} {name}"
            )
    return variables


def _check_tools(tools: Tools | None, template: str) -> None:
    for tool in tools or ():
        if not isinstance(tool, Mapping):
            raise InputError(f"tools must be JSON schemas of functions, which are objects, not {tool!r:.60}")
    # A template that does not read them would ignore them silently.
    if tools and "tools" not in template:
        raise InputError(
            "this model's chat template does not support tools; leave them out, or describe them in a message"
        )
