"""The tokens of one generation, by the loop that its options ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from triform.runtime.contrastive import ContrastiveSearch
from triform.runtime.generation_setup import RowSetup
from triform.runtime.hidden_step import HiddenStep
from triform.runtime.logprobs import TokenLogprobs, token_logprobs
from triform.runtime.loop import GrowingRow, Token, plain_loop
from triform.runtime.pace import Pace
from triform.runtime.sampling import Logits, Sampler
from triform.runtime.speculation import Proposer, SpeculativeStep, speculative_loop
from triform.runtime.text import Tokenizer


def row_tokens(
    step: SpeculativeStep,
    ids: Sequence[int],
    setup: RowSetup,
    tokenizer: Tokenizer,
    *,
    propose: Proposer | None,
    pace: Pace,
) -> Iterator[Token]:
    """Generate one row.

    Args:
        step: the model.
        ids: the prompt, at least one token.
        setup: from `set_up_row`.
        tokenizer: for the texts of log-probabilities.
        propose: gives tokens to try in one run; None takes one after another.
        pace: says how many, and learns what became of them.

    Yields:
        one `Token` at a time.
    """
    row = _growing_row(ids, setup, tokenizer, setup.sampler())
    if propose is None:
        return plain_loop(step, ids, row)
    return speculative_loop(step, ids, row, pace=pace, propose=propose)


def contrastive_tokens(step: HiddenStep, ids: Sequence[int], setup: RowSetup, tokenizer: Tokenizer) -> Iterator[Token]:
    """Generate one row by contrastive search. Arguments and result as `row_tokens`."""
    asked = setup.options
    search = ContrastiveSearch(
        step,
        setup.processors(),
        top_k=asked.top_k or 0,
        penalty_alpha=asked.penalty_alpha or 0.0,
        room=setup.limit,
    )
    return plain_loop(search, ids, _growing_row(ids, setup, tokenizer, search.choose))


def _growing_row(ids: Sequence[int], setup: RowSetup, tokenizer: Tokenizer, sampler: Sampler) -> GrowingRow:
    count = setup.options.logprobs

    def observe(logits: Logits, token: int) -> TokenLogprobs:
        return token_logprobs(tokenizer, logits, token, count or 0)

    return GrowingRow(
        ids,
        sampler,
        eos=setup.row.eos,
        max_new_tokens=setup.limit,
        observe=None if count is None else observe,
    )
