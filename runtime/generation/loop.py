"""The plain decoding loop and its row: token ids in, tokens out. It knows no text and no files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from triform.runtime.generation.logprobs import TokenLogprobs
from triform.runtime.generation.sampling import Sampler
from triform.runtime.generation.steps import FinishReason, Ids, Logits, Step
from triform.runtime.likeliest import Scores, all_logits


@dataclass(frozen=True)
class Token:
    """One generated token; `finish_reason` is set on the last.

    An end-of-sequence token is yielded like any other, with the reason "stop".
    """

    id: int
    finish_reason: FinishReason | None
    logprobs: TokenLogprobs | None = None


class GrowingRow:
    """The ids of one generation; chooses the next token and decides when to stop.

    Attributes:
        left: tokens that may still be chosen.
    """

    def __init__(
        self,
        ids: Sequence[int],
        sampler: Sampler,
        *,
        eos: Collection[int],
        max_new_tokens: int,
        observe: Callable[[Logits, int], TokenLogprobs] | None = None,
        ends: Callable[[int], bool] = lambda token: False,
    ) -> None:
        """Start with a prompt.

        Args:
            ids: the prompt, at least one token.
            sampler: called with the ids so far and the logits after them; returns a token.
            eos: tokens that end the sequence.
            max_new_tokens: at least 1.
            observe: called with the model's logits and the chosen token; returns its log-probabilities.
            ends: called with each token; returns whether the sequence ends with it for another reason.
        """
        # One array for the whole generation; the sampler sees the part that is filled.
        self._history = np.empty(len(ids) + max_new_tokens, np.int64)
        self._history[: len(ids)] = ids
        self._prompt = self._length = len(ids)
        self._sampler, self._eos, self._observe, self._ends = sampler, eos, observe, ends
        self.left = max_new_tokens

    @property
    def ids(self) -> Ids:
        """All ids so far, int64 (length,); a view."""
        return self._history[: self._length]

    @property
    def answer(self) -> tuple[int, ...]:
        """The chosen ids."""
        return tuple(self.ids[self._prompt :].tolist())

    def choose(self, scores: Scores) -> Token:
        """Choose the next token, and append it.

        Args:
            scores: the model's, after the last id.
        """
        token = self._sampler(self.ids, scores)
        self._history[self._length] = token
        self._length += 1
        self.left -= 1
        reason: FinishReason | None = None
        if token in self._eos or self._ends(token):
            reason = "stop"
        elif not self.left:
            reason = "length"
        return Token(token, reason, self._observe(all_logits(scores), token) if self._observe else None)


def plain_loop(step: Step, ids: Sequence[int], row: GrowingRow) -> Iterator[Token]:
    """Generate one token after another, until an end-of-sequence token or the limit.

    Args:
        step: the model.
        ids: the prompt, at least one token.
        row: chooses the tokens; holds the prompt.

    Yields:
        one `Token` at a time. The last one is not fed back, so the model is never run in vain.
    """
    token = row.choose(step.prefill(ids))
    yield token
    while token.finish_reason is None:
        token = row.choose(step.next(token.id))
        yield token
