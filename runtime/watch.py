"""What is noted while a generation runs, and the record made of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from triform.runtime.generation import Generation, Piece, Timings
from triform.runtime.pace import Pace


@dataclass
class Watch:
    """Counts and seconds of one generation.

    Attributes:
        prompt_tokens: of the prompt.
        cached_tokens: of these, those that the cache held.
        prefill: seconds up to the first token.
        tokens: seconds of each further token.
        pace: of speculation.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefill: float = 0.0
    tokens: list[float] = field(default_factory=list)
    pace: Pace = field(default_factory=Pace)
    _started: bool = False

    def note(self, since: float) -> float:
        """Note the time a token took; return the time now."""
        now = time.perf_counter()
        if self._started:
            self.tokens.append(now - since)
        else:
            self._started, self.prefill = True, now - since
        return now

    def finished(self, pieces: Sequence[Piece], load: float) -> Generation:
        """The record of a whole generation.

        Args:
            pieces: all of them.
            load: seconds it took to open the bundle.
        """
        logprobs = [one for piece in pieces for one in piece.logprobs or ()]
        return Generation(
            text="".join(piece.text for piece in pieces),
            token_ids=tuple(token for piece in pieces for token in piece.token_ids),
            finish_reason=pieces[-1].finish_reason or "length",
            prompt_tokens=self.prompt_tokens,
            timings=Timings(load, self.prefill, tuple(self.tokens)),
            logprobs=tuple(logprobs) if logprobs else None,
            cached_tokens=self.cached_tokens,
            proposed_tokens=self.pace.proposed,
            accepted_tokens=self.pace.accepted,
        )
