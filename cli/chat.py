"""The turns of ``triform chat``: answers to standard output, everything else to standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from triform.cli.interrupts import Stopped, stoppable
from triform.runtime.errors import ContextError, TriformError

if TYPE_CHECKING:
    from triform.runtime.conversation import Conversation
    from triform.runtime.decoder import Generation


def say(text: str) -> None:
    """Tell the user something that is no answer."""
    print(text, file=sys.stderr, flush=True)


def complain(error: Exception) -> None:
    """Say in one line what is wrong."""
    say(f"error: {' '.join(str(error).split())}")


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

    def take(self, message: str) -> None:
        """Answer a message, or do what a command asks for. What is wrong with it is said in one line."""
        from triform.cli.slash_commands import run_command

        if not message.strip():
            return
        try:
            if message.startswith("/") and not message.startswith("//"):
                run_command(self, message)
            else:
                # Two slashes are for a message that begins with one.
                self._answer(message[message.startswith("//") :])
        except TriformError as error:
            self.refused = True
            complain(error)

    def _answer(self, text: str) -> None:
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
