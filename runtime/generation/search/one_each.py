"""One answer per prompt, all prompts in one batch; each row's own sampler chooses its tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from triform.runtime.generation.search.batch import (
    Branches,
    Hypothesis,
    Request,
    growing_row,
    most_wanted,
    run_searches,
)
from triform.runtime.generation.steps import BatchStep, FinishReason
from triform.runtime.likeliest import Table

_NOTHING = np.zeros(0, np.int64)


def sample(step: BatchStep, requests: Sequence[Request], *, eos: Collection[int]) -> list[list[Hypothesis]]:
    """Generate one answer per prompt; rows that finish leave the batch.

    Args:
        step: the model.
        requests: the prompts and their samplers.
        eos: tokens that end a sequence.

    Returns:
        one hypothesis for each prompt, with a score of 0.

    Raises:
        InputError: a sequence outgrows the model's context.
        TriformError: onnxruntime failed, or the logits are not numbers.
    """
    rows = [_Row(request, eos) for request in requests]
    run_searches(step, requests, rows, most_wanted([request.wanted for request in requests]))
    return [[row.answer()] for row in rows]


class _Row:
    def __init__(self, request: Request, eos: Collection[int]) -> None:
        self._row = growing_row(request, eos)
        self._reason: FinishReason | None = None

    def advance(self, logits: Table) -> Branches:
        """Choose a token. Arguments and result as `PromptSearch`."""
        token = self._row.choose(logits[0])
        self._reason = token.finish_reason
        if self._reason is not None:
            return _NOTHING, _NOTHING
        return np.array([token.id]), np.zeros(1, np.int64)

    def answer(self) -> Hypothesis:
        """The generated answer."""
        return Hypothesis(self._row.answer, 0.0, self._reason or "length")
