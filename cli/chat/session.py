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
    """A conversation on a terminal, or by a script.

    Attributes:
        conversation: so far.
        stats: whether to tell the speed of each answer.
        context: tokens that the model can hold.
        done: whether the user has left.
        refused: whether anything was refused so far.
    """

    def __init__(self, conversation: Conversation, *, context: int, stats: bool) -> None:
        self.conversation, self.context, self.stats = conversation, context, stats
        self.done = self.refused = False

    def answer(self, text: str) -> None:
        """Answer a message, piece by piece.

        Raises:
            TriformError: it cannot be answered, and is no part of the conversation.
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
                say("note: stopped" if kept else "note: stopped before anything was said; the turn is taken back")
                return
            except ContextError as error:
                raise ContextError(f"the turn is taken back: {error}; /undo and /reset make room") from None
            except BaseException:
                # Behind what was shown so far.
                self._end(shown)
                raise
        self._end(True)
        self._remark(generation)

    def _end(self, shown: bool) -> None:
        if shown:
            print(flush=True)

    def _remark(self, generation: Generation) -> None:
        """Say what one should know about an answer, and how fast it was if that is wanted."""
        tokens = len(generation.token_ids)
        if generation.finish_reason == "length":
            full = generation.prompt_tokens + tokens >= self.context
            say(f"note: cut after {tokens} tokens" + (", where the context is full" if full else ""))
        if self.stats:
            timings, fresh = generation.timings, generation.prompt_tokens - generation.cached_tokens
            say(
                f"read {fresh} of {generation.prompt_tokens} tokens in {timings.prefill:.3f} s, the others were known; "
                f"wrote {tokens} tokens, {timings.decode_tokens_per_second:.1f} tokens/s"
            )
