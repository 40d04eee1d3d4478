"""Best of n: answer several times by sampling, all at once, and keep what the model itself finds likeliest."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import log_probability, log_softmax
from triform.runtime.generation.processors.contract import Temperature
from triform.runtime.generation.processors.truncation import weights_of
from triform.runtime.generation.sampling import Sampler, draw, greedy, process
from triform.runtime.generation.search.batch import Branches, Hypothesis, Request, run_searches
from triform.runtime.generation.steps import BatchStep, Ids, Logits


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


# From logits, processors applied, to a token.
Choice = Callable[[Logits], int]


def choice(temperature: float, generator: np.random.Generator | None) -> Choice:
    """How to choose a token.

    Args:
        temperature: 0 takes the likeliest.
        generator: to draw with, where the temperature is above 0.
    """
    if not temperature or generator is None:
        return greedy
    warm = Temperature(temperature)
    nothing: Ids = np.zeros(0, np.int64)
    return lambda logits: draw(weights_of(warm(nothing, logits)), generator.random())


def take(
    step: BatchStep, requests: Sequence[Request], choices: Sequence[Sequence[Choice]], *, eos: Collection[int]
) -> list[Hypothesis]:
    """Answer each prompt as often as there are choices for it, and keep the likeliest answer.

    Args:
        step: the model.
        requests: the prompts with their processors.
        choices: for each prompt, one for each of its answers.
        eos: tokens that end an answer.

    Returns:
        one hypothesis a prompt. Its score is the mean log-probability of its tokens, the end's included, once the
        processors have forbidden what they forbid, at a temperature of 1.

    Raises:
        InputError: a sequence outgrows the model's context.
        TriformError: onnxruntime failed, or the logits are not numbers.
    """
    searches = [_Takes(request, chosen, eos) for request, chosen in zip(requests, choices, strict=True)]
    run_searches(step, requests, searches)
    return [max(search.finished, key=lambda hypothesis: hypothesis.score) for search in searches]


class _Takes:
    """The answers to one prompt, as one search."""

    def __init__(self, request: Request, choices: Sequence[Choice], eos: Collection[int]) -> None:
        self.finished: list[Hypothesis] = []
        self._processors = request.processors
        self._prompt = len(request.ids)
        self._length = self._prompt + request.max_new_tokens
        self._eos = frozenset(eos)
        # Choice, ids so far, sum of log-probabilities, and row in the logits of each answer that goes on.
        self._live = [(chosen, np.array(request.ids, np.int64), 0.0, 0) for chosen in choices]

    def advance(self, logits: NDArray[np.float32]) -> Branches:
        """Choose a token for each answer. Arguments and result as `Search`."""
        live: list[tuple[Choice, NDArray[np.int64], float, int]] = []
        tokens, parents = [], []
        for chosen, ids, total, row in self._live:
            allowed = process(self._processors, ids, logits[row])
            token = chosen(allowed)
            total += log_probability(allowed, token)
            ids = np.append(ids, token)
            if token in self._eos or len(ids) == self._length:
                self._finish(ids, total, token)
            else:
                live.append((chosen, ids, total, len(live)))
                tokens.append(token)
                parents.append(row)
        self._live = live
        return np.array(tokens, np.int64), np.array(parents, np.int64)

    def _finish(self, ids: NDArray[np.int64], total: float, last: int) -> None:
        answer = tuple(ids[self._prompt :].tolist())
        self.finished.append(Hypothesis(answer, total / len(answer), "stop" if last in self._eos else "length"))
