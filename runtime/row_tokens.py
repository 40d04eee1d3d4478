"""The tokens of one generation, by the loop that its options ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from triform.runtime.generation_setup import RowSetup
from triform.runtime.logprobs import TokenLogprobs, token_logprobs
from triform.runtime.loop import GrowingRow, Token, plain_loop
from triform.runtime.pace import Pace
from triform.runtime.sampling import Logits
from triform.runtime.speculation import SpeculativeStep, speculative_loop
from triform.runtime.text import Tokenizer


def row_tokens(step: SpeculativeStep, ids: Sequence[int], setup: RowSetup, tokenizer: Tokenizer) -> Iterator[Token]:
    """Generate one row.

    Args:
        step: the model.
        ids: the prompt, at least one token.
        setup: from `set_up_row`.
        tokenizer: for the texts of log-probabilities.

    Yields:
        one `Token` at a time.
    """
    count = setup.options.logprobs

    def observe(logits: Logits, token: int) -> TokenLogprobs:
        return token_logprobs(tokenizer, logits, token, count or 0)

    row = GrowingRow(
        ids,
        setup.sampler(),
        eos=setup.row.eos,
        max_new_tokens=setup.limit,
        observe=None if count is None else observe,
    )
    if setup.speculates:
        return speculative_loop(step, ids, row, pace=Pace())
    return plain_loop(step, ids, row)
