"""What was written in answer to a prompt, or about a source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from triform.runtime.batch import Hypothesis
from triform.runtime.loop import FinishReason
from triform.runtime.stop_strings import StopStrings
from triform.runtime.text import Tokenizer


@dataclass(frozen=True)
class Written:
    """One answer of a beam search, or the only one.

    Attributes:
        text: special tokens left out.
        token_ids: an end-of-sequence token included.
        finish_reason: "stop" at an end-of-sequence token or a stop string, "length" at the limit.
        score: of a beam search; None otherwise.
    """

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    score: float | None = None


def written(hypothesis: Hypothesis, tokenizer: Tokenizer, stops: Sequence[str], scored: bool) -> Written:
    """A hypothesis as text.

    Args:
        hypothesis: what a search found.
        tokenizer: decodes it.
        stops: texts at which it ends.
        scored: whether its score means anything.
    """
    stop = StopStrings(stops)
    text = stop.push(tokenizer.decode(list(hypothesis.token_ids), skip_special_tokens=True)) + stop.flush()
    reason: FinishReason = "stop" if stop.found else hypothesis.finish_reason
    return Written(text, hypothesis.token_ids, reason, hypothesis.score if scored else None)
