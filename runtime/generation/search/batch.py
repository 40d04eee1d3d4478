"""Requests and the loop that runs their searches in one batch."""

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
from triform.runtime.likeliest import all_rows

# The rows to continue: token ids, and for each the index of the row that it is appended to.
Branches = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Request:
    """One prompt and the settings of its own answer.

    Attributes:
        ids: the prompt, at least one token.
        max_new_tokens: at least 1; together with the prompt no more than the model's context.
        processors: for beam search, applied in turn to the log-probabilities of each beam; none of them may have state,
            since beams are reordered.
        sampler: for a single answer, chooses each token and applies its own processors.
        ends: called with each token that the sampler chose; returns whether the answer ends with it. The row's own.
        wanted: how many of the likeliest tokens the sampler needs; None if it needs all logits.
    """

    ids: Sequence[int]
    max_new_tokens: int
    processors: Sequence[Processor] = ()
    sampler: Sampler = field(default_factory=lambda: make_sampler((), None))
    ends: Callable[[int], bool] = lambda token: False
    wanted: int | None = None


def growing_row(request: Request, eos: Collection[int]) -> GrowingRow:
    """The row of a request whose answer is a single one, with the request's own sampler.

    Args:
        request: the prompt.
        eos: tokens that end a sequence.
    """
    return GrowingRow(request.ids, request.sampler, eos=eos, max_new_tokens=request.max_new_tokens, ends=request.ends)


@dataclass(frozen=True)
class Hypothesis:
    """One of several answers to a prompt.

    Attributes:
        token_ids: the generated tokens, an end-of-sequence token included.
        score: for ranking; higher is better. Each search documents its own.
        finish_reason: "stop" after an end-of-sequence token.
    """

    token_ids: tuple[int, ...]
    score: float
    finish_reason: FinishReason


class PromptSearch(Protocol):
    """The search for one prompt; knows nothing of the other prompts in the batch."""

    def advance(self, logits: NDArray[np.float32]) -> Branches:
        """Choose the next tokens of the rows.

        Args:
            logits: of each row that the last call returned, in that order; of the prompt, (1, vocab_size), at first.

        Returns:
            the rows to run next; none when the search is over.
        """


def run_searches(step: BatchStep, requests: Sequence[Request], searches: Sequence[PromptSearch]) -> None:
    """Run one search per request, all in one batch, until all are over.

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
            logits = all_rows(step.next(tokens, parents))


def _advance(
    live: Sequence[tuple[PromptSearch, int]], logits: NDArray[np.float32]
) -> tuple[list[tuple[PromptSearch, int]], list[int], list[int]]:
    """Advance each search on its rows; returns those that continue with their row counts, and the batch's branches."""
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
