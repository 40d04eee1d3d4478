"""The turns of ``triform chat``: answers to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from triform.cli.chat.interrupts import Stopped, stoppable
from triform.runtime.errors import ContextError

if TYPE_CHECKING:
    from triform.runtime.decoder.conversation import Conversation
    from triform.runtime.generation.answers import Generation
from triform.cli.outputs.notes import say


class Chat:
    """A conversation with a user at a terminal, or with a script.

    Attributes:
        conversation: so far.
        stats: whether to print the speed of each answer.
        context: tokens that the model can hold.
        done: whether the user has left.
        refused: whether anything was refused so far.
    """

    def __init__(self, conversation: Conversation, *, context: int, stats: bool) -> None:
        self.conversation, self.context, self.stats = conversation, context, stats
        self.done = self.refused = False

    def answer(self, text: str) -> None:
        """Answer a message and print the pieces as they come.

        Raises:
            TriformError: it cannot be answered, and does not become part of the conversation.
        """
        before = len(self.conversation.messages)
        shown = False

        def show(piece: str) -> None:
            nonlocal shown
            check()
            sys.stdout.write(piece)
            sys.stdout.flush()
            shown = shown or bool(piece)

        with stoppable() as check:
            try:
                generation = self.conversation.stream_to(text, show=show)
            except Stopped:
                kept = len(self.conversation.messages) > before
                self._end(shown)
                say("note: stopped" if kept else "note: stopped before the first token; the turn was undone")
                return
            except ContextError as error:
                raise ContextError(f"the turn was undone: {error}; /undo or /reset frees space") from None
            except BaseException:
                # The error goes on a new line after the text shown so far.
                self._end(shown)
                raise
        self._end(True)
        self._remark(generation)

    def _end(self, shown: bool) -> None:
        if shown:
            print(flush=True)

    def _remark(self, generation: Generation) -> None:
        """Note an answer that was cut short, and print its speed if stats are on."""
        tokens = len(generation.token_ids)
        if generation.finish_reason == "length":
            full = generation.prompt_tokens + tokens >= self.context
            say(f"note: cut after {tokens} tokens" + (", where the context is full" if full else ""))
        if self.stats:
            timings, fresh = generation.timings, generation.prompt_tokens - generation.cached_tokens
            say(
                f"read {fresh} of {generation.prompt_tokens} tokens in {timings.prefill:.3f} s, "
                f"the rest from the cache; wrote {tokens} tokens, {timings.decode_tokens_per_second:.1f} tokens/s"
            )
