"""A conversation with a decoder: the messages so far, and the next answer."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triform.runtime.decoder.conversation_file import check_messages, read_conversation, write_conversation
from triform.runtime.decoder.prompt_input import PromptOptions
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.generation.answers import Generation, Piece
from triform.runtime.generation.options.generation import GenerationOptions

if TYPE_CHECKING:
    from triform.runtime.decoder.chat_template import Message
    from triform.runtime.decoder.model import Decoder
    from triform.runtime.decoder.prompt_input import Prompt, Tools


class Conversation:
    """A chat that keeps its history: each answer takes all earlier turns into account.

    For every turn, the chat template renders the whole conversation. The decoder runs only tokens that are not in its
    KV cache: the new message, and anything that the template now renders differently.

    The user's message and the answer are added to the history together, when the answer ends or is stopped. If an
    answer is stopped or fails, the part that was already returned is kept; if there is none, the history does not
    change. Starting a new turn, or changing the conversation in any other way, stops an answer that is still running.

    Attributes:
        options: options of the next answer; None for the model's defaults, or greedy decoding if it has none.
        prompt_options: keyword arguments of `PromptInput` for every turn, such as ``{"template_vars": {…}}``.

    Example:
        >>> chat = triform.Conversation(model, system="Be brief.")  # doctest: +SKIP
        >>> chat.send("Why is the sky blue?").text  # doctest: +SKIP
        >>> chat.send("And at night?").text  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Decoder,
        *,
        system: str | None = None,
        options: GenerationOptions | None = None,
        tools: Tools | None = None,
        template: str | None = None,
        template_vars: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin an empty conversation.

        Args:
            model: a decoder with a chat template. It can be used for other prompts in between, but then the next turn
                reads the whole conversation again.
            system: a system message.
            options: see the attribute.
            tools: for every turn; see `PromptInput`.
            template: for every turn; see `PromptInput`.
            template_vars: for every turn; see `PromptInput`.

        Raises:
            InputError: `system` is not a str.
            UnsupportedError: the bundle has no chat template.
        """
        info = model.manifest.tokenizer
        if info is None or not info.has_chat_template:
            raise UnsupportedError(
                "a conversation needs a chat template and this bundle has none; use `triform generate`, or export a "
                "model that was trained to chat"
            )
        self._model = model
        self._messages: list[dict[str, Any]] = []
        self._running: weakref.ref[Generator[Piece]] | None = None
        self.options = options
        self.prompt_options = PromptOptions(tools=tools, template=template, template_vars=template_vars)
        self.system = system

    @property
    def messages(self) -> list[dict[str, Any]]:
        """A copy of the history, system message included, in the form that chat templates take."""
        return deepcopy(self._messages)

    @property
    def system(self) -> str | None:
        """The system message, or None. A new value applies from the next turn on.

        Raises:
            InputError: the new value is not a str.
        """
        content = self._messages[0].get("content") if self._begins_with_system() else None
        return content if isinstance(content, str) else None

    @system.setter
    def system(self, text: str | None) -> None:
        if not isinstance(text, str | None):
            raise InputError(f"a system message must be a text, not {text!r:.60}")
        self._stop()
        del self._messages[: self._begins_with_system()]
        if text is not None:
            self._messages.insert(0, {"role": "system", "content": text})

    def send(self, prompt: Prompt) -> Generation:
        """Return the whole answer to a message. Arguments and errors as `stream`."""
        return self.stream_to(prompt, show=lambda text: None)

    def stream(self, prompt: Prompt) -> Iterator[Piece]:
        """Stream the answer to a message piece by piece.

        Args:
            prompt: the user's message, or messages to add, such as the results of tools. If the last one has the role
                "assistant", the model continues it, and the answer is the continuation.

        Returns:
            an iterator, see `Decoder.stream`; the turn is added with the last piece, or when the iterator is closed.

        Raises:
            InputError: the prompt is empty, or the template refuses it.
            ContextError: the conversation no longer fits the model's context.
        """
        new = self._new_messages(prompt)
        pieces = self._model.stream([*self._messages, *new], self.options, **self.prompt_options)
        running = self._recorded(new, pieces)
        self._running = weakref.ref(running)
        return running

    def stream_to(self, prompt: Prompt, *, show: Callable[[str], None]) -> Generation:
        """Return the whole answer, calling `show` with each piece's text on the way.

        Args:
            prompt: see `stream`.
            show: called with the text of each piece. If it raises, the answer ends before that piece, and the exception
                is passed on.

        Raises:
            InputError: see `stream`.
            ContextError: see `stream`.
        """
        new, texts = self._new_messages(prompt), []

        def show_and_keep(text: str) -> None:
            show(text)
            texts.append(text)

        messages, options = [*self._messages, *new], self.options or GenerationOptions()
        try:
            generation = self._model.stream_to(messages, options, show=show_and_keep, **self.prompt_options)
        except BaseException:
            self._add_stopped(new, texts)
            raise
        self._add(new, texts)
        return generation

    def undo(self) -> list[dict[str, Any]]:
        """Remove the last turn: the last user message and everything after it.

        Returns:
            the removed messages.

        Raises:
            InputError: there is no turn.
        """
        self._stop()
        starts = [place for place, message in enumerate(self._messages) if message["role"] == "user"]
        if not starts:
            raise InputError("there is no turn to undo")
        removed = self._messages[starts[-1] :]
        del self._messages[starts[-1] :]
        return removed

    def reset(self) -> None:
        """Remove all turns; the system message stays."""
        self._stop()
        del self._messages[self._begins_with_system() :]

    def restore(self, messages: Sequence[Message]) -> None:
        """Replace the history.

        Args:
            messages: in the form of the attribute `messages`.

        Raises:
            InputError: one of them is not a message.
        """
        restored = [dict(message) if not isinstance(message, str) else message for message in messages]
        check_messages(restored)
        self._stop()
        self._messages = deepcopy(restored)

    def save(self, path: str | Path) -> None:
        """Write the conversation to a JSON file, {"messages": […]}.

        Raises:
            InputError: the file cannot be written.
        """
        self._stop()
        write_conversation(Path(path), self._messages)

    def load(self, path: str | Path) -> None:
        """Replace the history with a conversation that `save` wrote.

        Raises:
            InputError: the file cannot be read, or is damaged; the history is then unchanged.
        """
        self.restore(read_conversation(Path(path)))

    def _new_messages(self, prompt: Prompt) -> list[dict[str, Any]]:
        self._stop()
        if isinstance(prompt, str):
            if not prompt.strip():
                raise InputError("the message is empty")
            return [{"role": "user", "content": prompt}]
        new = [dict(message) if not isinstance(message, str) else message for message in prompt]
        if not new:
            raise InputError("there are no messages")
        check_messages(new)
        return deepcopy(new)

    def _recorded(self, new: list[dict[str, Any]], pieces: Iterator[Piece]) -> Generator[Piece]:
        """The pieces; the turn is added when they end or the generator is closed."""
        texts: list[str] = []
        added = False
        try:
            for piece in pieces:
                texts.append(piece.text)
                if piece.finish_reason is not None:
                    self._add(new, texts)
                    added = True
                yield piece
        finally:
            if not added:
                self._add_stopped(new, texts)

    def _add_stopped(self, new: list[dict[str, Any]], texts: Iterable[str]) -> None:
        if any(texts):
            self._add(new, texts)

    def _add(self, new: list[dict[str, Any]], texts: Iterable[str]) -> None:
        text = "".join(texts)
        if new[-1]["role"] == "assistant":
            self._messages += [*new[:-1], _continued(new[-1], text)]
        else:
            self._messages += [*new, {"role": "assistant", "content": text}]

    def _stop(self) -> None:
        """End a running answer, which adds its turn to the history before anything else changes it."""
        running = None if self._running is None else self._running()
        self._running = None
        if running is not None:
            running.close()

    def _begins_with_system(self) -> bool:
        return bool(self._messages) and self._messages[0]["role"] == "system"


def _continued(message: dict[str, Any], text: str) -> dict[str, Any]:
    """An assistant message with text appended."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": content + text}
    return {**message, "content": [*content, {"type": "text", "text": text}]}
