"""Several sequences in one batch: what a model offers, what is asked, and the loop between the two."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triform.runtime.generation.loop import GrowingRow
from triform.runtime.generation.processors.contract import Processor
from triform.runtime.generation.sampling import Sampler, make_sampler
from triform.runtime.generation.steps import BatchStep, FinishReason

# The rows that go on: token ids, and for each the row it is appended to.
Branches = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Request:
    """One prompt and what holds for its answer alone.

    Attributes:
        ids: the prompt, at least one token.
        max_new_tokens: at least 1; together with the prompt no more than the model's context.
        processors: where beams are followed, applied in turn to the log-probabilities of each; none of them may have a
            state, as beams come and go.
        sampler: where one answer is followed, chooses a token after another, its own processors applied.
        ends: told each token that the sampler chose; whether the answer ends with it. The row's own.
    """

    ids: Sequence[int]
    max_new_tokens: int
    processors: Sequence[Processor] = ()
    sampler: Sampler = field(default_factory=lambda: make_sampler((), None))
    ends: Callable[[int], bool] = lambda token: False


def growing_row(request: Request, eos: Collection[int]) -> GrowingRow:
    """The answer to a request that is followed alone, its own sampler choosing.

    Args:
        request: the prompt.
        eos: tokens that end a sequence.
    """
    return GrowingRow(request.ids, request.sampler, eos=eos, max_new_tokens=request.max_new_tokens, ends=request.ends)


@dataclass(frozen=True)
class Hypothesis:
    """One of several answers to a prompt.

    Attributes:
        token_ids: what was generated, an end-of-sequence token included.
        score: what it was ranked by; higher is better. Each search says what it is.
        finish_reason: "stop" after an end-of-sequence token.
    """

    token_ids: tuple[int, ...]
    score: float
    finish_reason: FinishReason


class PromptSearch(Protocol):
    """What one prompt makes of its rows; knows nothing of the other prompts in the batch."""

    def advance(self, logits: NDArray[np.float32]) -> Branches:
        """Choose how the rows go on.

        Args:
            logits: of each row `advance` asked for last, in that order; of the prompt alone, (1, vocab_size), at first.

        Returns:
            the rows to run next; none when the search is over.
        """


def run_searches(step: BatchStep, requests: Sequence[Request], searches: Sequence[PromptSearch]) -> None:
    """Run one search a request, all in one batch, until all are over.

    Raises:
        InputError: a sequence outgrows the model's context.
        TriformError: onnxruntime failed.
    """
    if not requests:
        return
    logits = step.prefill([request.ids for request in requests])
    live = [(search, 1) for search in searches]
    while live:
        live, tokens, parents = _advance(live, logits)
        if live:
            logits = step.next(tokens, parents)


def _advance(
    live: Sequence[tuple[PromptSearch, int]], logits: NDArray[np.float32]
) -> tuple[list[tuple[PromptSearch, int]], list[int], list[int]]:
    """Advance each search on its rows; give those that go on with their new row counts, and the batch's branches."""
    remaining: list[tuple[PromptSearch, int]] = []
    tokens: list[int] = []
    parents: list[int] = []
    start = 0
    for search, rows in live:
        chosen, sources = search.advance(logits[start : start + rows])
        tokens += chosen.tolist()
        parents += (sources + start).tolist()
        if len(chosen):
            remaining.append((search, len(chosen)))
        start += rows
    return remaining, tokens, parents
