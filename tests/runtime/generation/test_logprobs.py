"""Log-probabilities of tokens by arithmetic: 1/2, 1/8, 1/4 and 1/8, moved by a constant that no probability sees."""

from __future__ import annotations

from math import log
from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.generation.logprobs import TokenLogprobs, token_logprobs

LOGITS = (np.log([1 / 2, 1 / 8, 1 / 4, 1 / 8]) + 3).astype(np.float32)
# Token 0 is special, and written all the same.
TOKENIZER = SimpleNamespace(decode=lambda ids, skip_special_tokens: "" if skip_special_tokens else f"<{ids[0]}>")


@pytest.mark.parametrize(
    ("count", "top"),
    [
        (0, []),
        (1, [(0, 1 / 2)]),
        # Of two that are as likely, the first.
        (3, [(0, 1 / 2), (2, 1 / 4), (1, 1 / 8)]),
        (9, [(0, 1 / 2), (2, 1 / 4), (1, 1 / 8), (3, 1 / 8)]),
    ],
)
def test_a_token_and_the_likeliest_ones(count, top):
    found = token_logprobs(TOKENIZER, LOGITS, 2, count)
    assert isinstance(found, TokenLogprobs)
    assert (found.id, found.text, found.logprob) == (2, "<2>", pytest.approx(log(1 / 4), abs=1e-6))
    assert [(one.id, one.text) for one in found.top] == [(token, f"<{token}>") for token, _ in top]
    assert [one.logprob for one in found.top] == pytest.approx([log(share) for _, share in top], abs=1e-6)
