"""Decoding that tries several tokens in one run and keeps those that the sampler would have chosen one by one.

Whatever is proposed, each token is chosen by the sampler from the logits after the tokens before it, in their order: a
proposal is kept where it is what was chosen, and everything after the first that is not is forgotten. So the sampler,
its random numbers and processors with a state see exactly what they see without proposals, and choose the same. Of the
usual rule for sampling (https://arxiv.org/abs/2211.17192) this is the case of a proposal that is certain: a proposed
token is kept with the probability that the model gives it, and otherwise another is drawn in proportion to theirs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from triform.runtime.generation.loop import GrowingRow, Token
from triform.runtime.generation.speculation.pace import Pace
from triform.runtime.generation.steps import Ids, Logits, SpeculativeStep

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
    """As `plain_loop`, in fewer runs of the model where `propose` guesses well.

    Args:
        step: the model.
        ids: the prompt, at least one token.
        row: what chooses the tokens; holds the prompt.
        pace: says how many tokens to try, and is told what became of them.
        propose: called with the ids so far and how many tokens are wanted; gives so many, or none.
        clock: seconds.

    Yields:
        one `Token` at a time.
    """
    token = row.choose(step.prefill(ids))
    yield token
    while token.finish_reason is None:
        # The last token of a row is not fed.
        wanted = pace.wanted(min(row.left - 1, step.room - 1))
        # What it takes to find proposals is part of what they cost.
        start = clock()
        proposed = propose(row.ids, wanted).tolist() if wanted else []
        if not proposed:
            logits = step.next(token.id)
            pace.stepped(clock() - start)
            token = row.choose(logits)
            yield token
            continue
        table = step.extend([token.id, *proposed])
        took, chosen = clock() - start, _agreeing(row, table, proposed)
        # Before they are given away: whoever asked may have enough.
        step.trim(len(proposed) + 1 - len(chosen))
        pace.tried(len(proposed), _kept(chosen, proposed), took)
        yield from chosen
        token = chosen[-1]


def _agreeing(row: GrowingRow, table: Logits, proposed: Sequence[int]) -> list[Token]:
    """Choose tokens as long as they are what was proposed, and the first that is not."""
    chosen = []
    for logits, guess in zip(table, [*proposed, None], strict=True):
        chosen.append(row.choose(logits))
        if chosen[-1].id != guess or chosen[-1].finish_reason is not None:
            break
    return chosen


def _kept(chosen: Sequence[Token], proposed: Sequence[int]) -> int:
    return sum(one.id == guess for one, guess in zip(chosen, proposed, strict=False))
