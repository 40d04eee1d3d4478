"""Best of n: answer several times by sampling, all at once, and keep what the model itself finds likeliest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from triform.runtime.batch import BatchStep, Branches, Hypothesis, Request, log_softmax, run_searches
from triform.runtime.sampling import Sampler


def best_of(
    step: BatchStep,
    requests: Sequence[Request],
    count: int,
    make_samplers: Sequence[Callable[[int], Sampler]],
    *,
    eos: Collection[int],
) -> list[list[Hypothesis]]:
    """Sample `count` answers to each prompt, all prompts in one batch; each prompt is read once.

    Args:
        step: the model.
        requests: the prompts. Their own samplers and processors are not used.
        count: answers a prompt, at least 1.
        make_samplers: for each prompt, from the number of an answer, 0 to `count` - 1, to a sampler for it alone.
        eos: tokens that end a sequence.

    Returns:
        for each prompt `count` hypotheses, the best first. The score is the mean log-probability of an answer's tokens
        under the model as it is, before any processor.

    Raises:
        InputError: a sequence outgrows the model's context.
        TriformError: onnxruntime failed, or the logits are not numbers.
    """
    searches = [
        _Samples(request, [make(index) for index in range(count)], eos)
        for request, make in zip(requests, make_samplers, strict=True)
    ]
    run_searches(step, requests, searches)
    return [sorted(search.finished, key=lambda hypothesis: -hypothesis.score) for search in searches]


class _Samples:
    """The answers to one prompt, as one search."""

    def __init__(self, request: Request, samplers: Sequence[Sampler], eos: Collection[int]) -> None:
        self.finished: list[Hypothesis] = []
        self._prompt_length = len(request.ids)
        self._length = len(request.ids) + request.max_new_tokens
        self._eos = frozenset(eos)
        # Sampler, ids so far, sum of log-probabilities, and row in the logits of each answer that goes on.
        self._live = [(sampler, np.array(request.ids, np.int64), 0.0, 0) for sampler in samplers]

    def advance(self, logits: NDArray[np.float32]) -> Branches:
        """Draw a token for each answer. Arguments and result as `Search`."""
        log_probabilities = log_softmax(logits)
        live: list[tuple[Sampler, NDArray[np.int64], float, int]] = []
        tokens, parents = [], []
        for sampler, ids, total, row in self._live:
            token = sampler(ids, logits[row])
            ids = np.append(ids, token)
            total += float(log_probabilities[row, token])
            if token in self._eos or len(ids) == self._length:
                self._finish(ids, total, token)
            else:
                live.append((sampler, ids, total, len(live)))
                tokens.append(token)
                parents.append(row)
        self._live = live
        return np.array(tokens, np.int64), np.array(parents, np.int64)

    def _finish(self, ids: NDArray[np.int64], total: float, last: int) -> None:
        answer = tuple(ids[self._prompt_length :].tolist())
        self.finished.append(Hypothesis(answer, total / len(answer), "stop" if last in self._eos else "length"))
