"""The decoding loop: token ids in, tokens out. It knows no text and no files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from triform.runtime.logprobs import TokenLogprobs
from triform.runtime.sampling import Logits, Sampler

FinishReason = Literal["stop", "length"]


class Step(Protocol):
    """What the loop needs of a model."""

    def prefill(self, ids: Sequence[int]) -> Logits:
        """Append tokens; give the logits after the last."""

    def next(self, token: int) -> Logits:
        """Append a token; give the logits after it."""


@dataclass(frozen=True)
class Token:
    """One generated token; `finish_reason` is set on the last.

    An end-of-sequence token is yielded like any other, with the reason "stop".
    """

    id: int
    finish_reason: FinishReason | None
    logprobs: TokenLogprobs | None = None


def decode_loop(
    step: Step,
    ids: Sequence[int],
    sampler: Sampler,
    *,
    eos: Collection[int],
    max_new_tokens: int,
    observe: Callable[[Logits, int], TokenLogprobs] | None = None,
) -> Iterator[Token]:
    """Generate until an end-of-sequence token or the limit.

    Args:
        step: the model, with the cache the sequence continues.
        ids: the prompt, at least one token.
        sampler: the ids so far and the logits after them to a token.
        eos: tokens that end the sequence.
        max_new_tokens: at least 1.
        observe: called with the model's logits and the token chosen, for its log-probabilities.

    Yields:
        one `Token` at a time. The last one is not fed back, so a limit costs no run whose logits nobody reads.
    """
    # One array for the whole generation, of which the sampler sees the part that is there.
    history = np.empty(len(ids) + max_new_tokens, np.int64)
    history[: len(ids)] = ids
    logits = step.prefill(ids)
    for count in range(1, max_new_tokens + 1):
        length = len(ids) + count
        token = sampler(history[: length - 1], logits)
        history[length - 1] = token
        reason: FinishReason | None = None
        if token in eos:
            reason = "stop"
        elif count == max_new_tokens:
            reason = "length"
        yield Token(token, reason, observe(logits, token) if observe else None)
        if reason is not None:
            return
        logits = step.next(token)
