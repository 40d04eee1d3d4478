"""A conversation with a decoder: what was said so far, and the next answer."""

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
    """Turns of a user and a model, each answered with all of those before it in mind.

    Every turn the whole conversation is rendered by the model's chat template. Of its tokens the decoder runs those
    whose keys and values it does not hold: what is new, and what the template says otherwise than the turn before.

    A turn is added whole, what was asked and the answer together, when the answer ends or is stopped. Of an answer that
    is stopped or fails, what was given out stays; where that is nothing, the conversation is as if nobody had asked.
    A turn that begins, and whatever else changes the conversation, stops an answer that has not ended.

    Attributes:
        options: of the next answer; greedy or the model's own defaults when None.
        prompt_options: what every turn comes with, such as ``{"template_vars": {…}}``; see `PromptInput`.

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
            model: a decoder with a chat template. Others may use it too, but then the conversation is read anew.
            system: a system message.
            options: see above.
            tools: see `PromptInput`, of every turn.
            template: see `PromptInput`, of every turn.
            template_vars: see `PromptInput`, of every turn.

        Raises:
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
        """A copy of all that was said, the system message included, as a chat template is given it."""
        return deepcopy(self._messages)

    @property
    def system(self) -> str | None:
        """The system message; None where there is none. Set it for the turns to come.

        Raises:
            InputError: what it is set to is no text.
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
        """Answer. Arguments and errors as `stream`."""
        return self.stream_to(prompt, show=lambda text: None)

    def stream(self, prompt: Prompt) -> Iterator[Piece]:
        """Answer piece by piece.

        Args:
            prompt: what the user says, or messages to add, such as the results of tools. Where they end with one of the
                assistant's, it is continued, and what comes is the rest of it.

        Returns:
            an iterator, see `Decoder.stream`; the turn is added with the last piece, or when the iterator is closed.

        Raises:
            InputError: the prompt is empty, or refused by the template.
            ContextError: with it the conversation does not fit the model's context.
        """
        new = self._asked(prompt)
        pieces = self._model.stream([*self._messages, *new], self.options, **self.prompt_options)
        running = self._answered(new, pieces)
        self._running = weakref.ref(running)
        return running

    def stream_to(self, prompt: Prompt, *, show: Callable[[str], None]) -> Generation:
        """Answer, calling `show(text)` with each piece as it comes. Other arguments and errors as `stream`.

        Whatever `show` raises stops the answer before that piece, and is raised.
        """
        new, texts = self._asked(prompt), []

        def tell(text: str) -> None:
            show(text)
            texts.append(text)

        prompts, options = [*self._messages, *new], self.options or GenerationOptions()
        try:
            generation = self._model.stream_to(prompts, options, show=tell, **self.prompt_options)
        except BaseException:
            self._add_stopped(new, texts)
            raise
        self._add(new, texts)
        return generation

    def undo(self) -> list[dict[str, Any]]:
        """Take back the last turn: the user's last message and all that came after.

        Returns:
            what was taken back.

        Raises:
            InputError: there is no turn.
        """
        self._stop()
        turns = [place for place, message in enumerate(self._messages) if message["role"] == "user"]
        if not turns:
            raise InputError("there is no turn to take back")
        taken = self._messages[turns[-1] :]
        del self._messages[turns[-1] :]
        return taken

    def reset(self) -> None:
        """Forget all turns; the system message stays."""
        self._stop()
        del self._messages[self._begins_with_system() :]

    def restore(self, messages: Sequence[Message]) -> None:
        """Go on from these messages instead of the present ones.

        Args:
            messages: as `messages` gives them.

        Raises:
            InputError: one of them is no message.
        """
        restored = [dict(message) if not isinstance(message, str) else message for message in messages]
        check_messages(restored)
        self._stop()
        self._messages = deepcopy(restored)

    def save(self, path: str | Path) -> None:
        """Write the conversation as JSON, {"messages": […]}.

        Raises:
            InputError: it cannot be written.
        """
        self._stop()
        write_conversation(Path(path), self._messages)

    def load(self, path: str | Path) -> None:
        """Go on from a conversation that `save` wrote.

        Raises:
            InputError: it cannot be read, or is damaged; the present conversation is then as it was.
        """
        self.restore(read_conversation(Path(path)))

    def _asked(self, prompt: Prompt) -> list[dict[str, Any]]:
        self._stop()
        if isinstance(prompt, str):
            if not prompt.strip():
                raise InputError("the message is empty")
            return [{"role": "user", "content": prompt}]
        new = [dict(message) if not isinstance(message, str) else message for message in prompt]
        if not new:
            raise InputError("there is no message")
        check_messages(new)
        return deepcopy(new)

    def _answered(self, new: list[dict[str, Any]], pieces: Iterator[Piece]) -> Generator[Piece]:
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
        """End an answer that is still being given, so that what was said comes before what follows."""
        running = None if self._running is None else self._running()
        self._running = None
        if running is not None:
            running.close()

    def _begins_with_system(self) -> bool:
        return bool(self._messages) and self._messages[0]["role"] == "system"


def _continued(message: dict[str, Any], text: str) -> dict[str, Any]:
    """A message of the assistant's with more text at its end."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": content + text}
    return {**message, "content": [*content, {"type": "text", "text": text}]}
