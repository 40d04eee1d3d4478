"""The decoding loop: token ids in, tokens out. It knows no text and no files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

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


def decode_loop(
    step: Step, ids: Sequence[int], sampler: Sampler, *, eos: Collection[int], max_new_tokens: int
) -> Iterator[Token]:
    """Generate until an end-of-sequence token or the limit.

    Args:
        step: the model, with the cache the sequence continues.
        ids: the prompt, at least one token.
        sampler: logits to a token.
        eos: tokens that end the sequence.
        max_new_tokens: at least 1.

    Yields:
        one `Token` at a time. The last one is not fed back, so a limit costs no run whose logits nobody reads.
    """
    logits = step.prefill(ids)
    for count in range(1, max_new_tokens + 1):
        token = sampler(logits)
        reason: FinishReason | None = None
        if token in eos:
            reason = "stop"
        elif count == max_new_tokens:
            reason = "length"
        yield Token(token, reason)
        if reason is not None:
            return
        logits = step.next(token)
