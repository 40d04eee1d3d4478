"""One answer a prompt, all prompts in one batch: each row's own sampler chooses its tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from triform.runtime.batch import BatchStep, Branches, Hypothesis, Request, run_searches

_NOTHING = np.zeros(0, np.int64)


def sample(step: BatchStep, requests: Sequence[Request], *, eos: Collection[int]) -> list[list[Hypothesis]]:
    """Answer each prompt once; rows that finish leave the batch.

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
    run_searches(step, requests, rows)
    return [[row.answer()] for row in rows]


class _Row:
    def __init__(self, request: Request, eos: Collection[int]) -> None:
        self._sampler, self._ends = request.sampler, request.ends
        self._prompt = len(request.ids)
        self._eos = frozenset(eos)
        # One array for the whole row, of which the sampler sees the part that is there.
        self._ids = np.empty(self._prompt + request.max_new_tokens, np.int64)
        self._ids[: self._prompt] = request.ids
        self._length = self._prompt
        self._stopped = False

    def advance(self, logits: NDArray[np.float32]) -> Branches:
        """Choose a token. Arguments and result as `Search`."""
        token = self._sampler(self._ids[: self._length], logits[0])
        self._ids[self._length] = token
        self._length += 1
        self._stopped = self._ends(token) or token in self._eos
        if self._stopped or self._length == len(self._ids):
            return _NOTHING, _NOTHING
        return np.array([token]), np.zeros(1, np.int64)

    def answer(self) -> Hypothesis:
        """What was written."""
        found = tuple(self._ids[self._prompt : self._length].tolist())
        return Hypothesis(found, 0.0, "stop" if self._stopped else "length")
