"""Log-probabilities of generated tokens, of the model's own distribution before anything is done to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from triform.runtime.arithmetic import log_sum_exp
from triform.runtime.generation.processors.ranking import largest
from triform.runtime.generation.steps import Logits
from triform.runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenLogprob:
    """A token and the natural logarithm of its probability; minus infinity where that is 0."""

    id: int
    text: str
    logprob: float


@dataclass(frozen=True)
class TokenLogprobs(TokenLogprob):
    """A generated token.

    Attributes:
        top: the likeliest tokens in its place, as many as were asked for, most likely first.
    """

    top: tuple[TokenLogprob, ...] = ()


def token_logprobs(tokenizer: Tokenizer, logits: Logits, token: int, count: int) -> TokenLogprobs:
    """What the model thought of a token, and what it would have liked best.

    Args:
        tokenizer: for the texts.
        logits: the model's, float32 (vocab_size,), not processed.
        token: the one generated.
        count: of the likeliest tokens to tell.
    """
    known = min(count, len(logits))
    top = largest(logits, known) if known else np.zeros(0, np.int64)
    # Of tokens as likely as the last of them, the first ones.
    top = top[np.argsort(-logits[top], kind="stable")][:known]
    total = float(log_sum_exp(logits)[0])

    def told(id_: int) -> TokenLogprob:
        return TokenLogprob(id_, tokenizer.decode([id_], skip_special_tokens=False), float(logits[id_]) - total)

    chosen = told(token)
    return TokenLogprobs(token, chosen.text, chosen.logprob, tuple(told(one) for one in top.tolist()))
