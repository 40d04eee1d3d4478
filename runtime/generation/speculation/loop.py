"""Speculative decoding: several proposed tokens are run at once, and those that the sampler agrees with are kept.

The sampler chooses each token from the logits after the tokens before it, in order. A proposed token is kept if it is
the one that was chosen; everything after the first that is not is discarded. So the sampler, its random numbers and
processors with state see exactly what they see without proposals, and choose the same tokens. This is the usual
acceptance rule (https://arxiv.org/abs/2211.17192) for a deterministic proposal: a proposed token is accepted with the
probability that the model gives it, and otherwise another is sampled in proportion to the other probabilities.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from triform.runtime.generation.loop import GrowingRow, Token
from triform.runtime.generation.speculation.pace import Pace
from triform.runtime.generation.steps import Ids, SpeculativeStep
from triform.runtime.likeliest import Table

Proposer = Callable[[Ids, int], Ids]


def speculative_loop(
    step: SpeculativeStep,
    ids: Sequence[int],
    row: GrowingRow,
    *,
    pace: Pace,
    propose: Proposer,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Token]:
    """As `plain_loop`, with fewer runs of the model where the proposals are right.

    Args:
        step: the model.
        ids: the prompt, at least one token.
        row: chooses the tokens; holds the prompt.
        pace: decides how many tokens to propose, and learns from the results.
        propose: called with the ids so far and a number of tokens; returns as many, or none.
        clock: returns the time in seconds.

    Yields:
        one `Token` at a time.
    """
    token = row.choose(step.prefill(ids))
    yield token
    while token.finish_reason is None:
        # The last token of a row is not fed.
        count = pace.wanted(min(row.left - 1, step.room - 1))
        # The time it takes to find proposals is part of their cost.
        start = clock()
        proposed = propose(row.ids, count).tolist() if count else []
        if not proposed:
            logits = step.next(token.id)
            pace.stepped(clock() - start)
            token = row.choose(logits)
            yield token
            continue
        table = step.extend([token.id, *proposed])
        took, chosen = clock() - start, _agreeing(row, table, proposed)
        # Before the tokens are yielded, since the caller may stop there.
        step.trim(len(proposed) + 1 - len(chosen))
        pace.tried(len(proposed), _kept(chosen, proposed), took)
        yield from chosen
        token = chosen[-1]


def _agreeing(row: GrowingRow, table: Table, proposed: Sequence[int]) -> list[Token]:
    """Choose tokens as long as they match the proposal, and the first that does not."""
    chosen = []
    for logits, guess in zip(table, [*proposed, None], strict=True):
        chosen.append(row.choose(logits))
        if chosen[-1].id != guess or chosen[-1].finish_reason is not None:
            break
    return chosen


def _kept(chosen: Sequence[Token], proposed: Sequence[int]) -> int:
    return sum(token.id == guess for token, guess in zip(chosen, proposed, strict=False))
