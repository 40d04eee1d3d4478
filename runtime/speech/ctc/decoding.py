"""Decodes frames of log-probabilities by their most likely tokens.

Source: Graves et al., "Connectionist Temporal Classification" (2006), best path decoding: equal tokens that follow each
other are one, then blanks are dropped.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from triform.runtime.arithmetic import Array


class FramedToken(NamedTuple):
    """A token and the frames that it is heard in.

    Attributes:
        token: its id.
        start: its first frame.
        end: the frame after its last one.
        logprob: the highest logarithm of its probability in these frames.
    """

    token: int
    start: int
    end: int
    logprob: float


class CtcDecoder(Protocol):
    """Decodes one recording, whose frames come in parts."""

    def feed(self, log_probs: Array) -> list[FramedToken]:
        """Add frames, float32 (frames, vocab_size); returns the tokens that later frames cannot change."""

    def finish(self) -> list[FramedToken]:
        """The tokens that are left at the end."""


class GreedyDecoder:
    """Takes the most likely token of each frame; see `CtcDecoder`."""

    def __init__(self, blank: int) -> None:
        self._blank = blank
        self._frame = 0
        # The run of equal tokens that the next frame may continue; None after a blank.
        self._open: FramedToken | None = None

    def feed(self, log_probs: Array) -> list[FramedToken]:
        """See `CtcDecoder`."""
        tokens: list[FramedToken] = []
        best = log_probs.argmax(-1)
        for token, logprob in zip(best.tolist(), log_probs.max(-1).tolist(), strict=True):
            last = self._open
            if last is not None and last.token == token:
                self._open = last._replace(end=self._frame + 1, logprob=max(last.logprob, logprob))
            else:
                tokens += self.finish()
                if token != self._blank:
                    self._open = FramedToken(token, self._frame, self._frame + 1, logprob)
            self._frame += 1
        return tokens

    def finish(self) -> list[FramedToken]:
        """See `CtcDecoder`."""
        left = [] if self._open is None else [self._open]
        self._open = None
        return left
