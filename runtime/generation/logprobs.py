"""Log-probabilities of generated tokens under the model's own distribution, before any processor."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from triform.runtime.arithmetic import log_sum_exp
from triform.runtime.generation.processors.ranking import largest
from triform.runtime.generation.steps import Logits
from triform.runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability, minus infinity for a probability of 0."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprobs(TokenLogprob):
    """A generated token.

    Attributes:
        top: the most likely tokens at its position, the most likely first; as many as were requested.
    """

    top: tuple[TokenLogprob, ...] = ()


def token_logprobs(tokenizer: Tokenizer, logits: Logits, token: int, count: int) -> TokenLogprobs:
    """The log-probabilities of a generated token and of the most likely ones.

    Args:
        tokenizer: for the texts.
        logits: the model's, float32 (vocab_size,), not processed.
        token: the generated one.
        count: number of most likely tokens to report.
    """
    count = min(count, len(logits))
    top = largest(logits, count) if count else np.zeros(0, np.int64)
    # Of equally likely tokens, the first ones.
    top = top[np.argsort(-logits[top], kind="stable")][:count]
    total = float(log_sum_exp(logits)[0])

    def logprob(id_: int) -> TokenLogprob:
        return TokenLogprob(id_, tokenizer.decode([id_], skip_special_tokens=False), float(logits[id_]) - total)

    chosen = logprob(token)
    return TokenLogprobs(token, chosen.text, chosen.logprob, tuple(logprob(id_) for id_ in top.tolist()))
