"""Beam search, scored and stopped as transformers' ``generate(num_beams=...)`` does it.

A *beam* is an unfinished sequence, a *hypothesis* a finished one. Each step takes the best continuations of all beams
as candidates, adds those that end to the hypotheses, and continues with the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import log_softmax
from triform.runtime.generation.options.beams import BeamOptions
from triform.runtime.generation.processors.ranking import largest
from triform.runtime.generation.sampling import process
from triform.runtime.generation.search.batch import Branches, Hypothesis, Request, run_searches
from triform.runtime.generation.steps import BatchStep
from triform.runtime.likeliest import Table, all_rows

# Called with the scores of all continuations, (continuations,), and a number of candidates; returns their positions,
# the best first.
Choose = Callable[[NDArray[np.floating[Any]], int], NDArray[np.int64]]


def beam_search(
    step: BatchStep, requests: Sequence[Request], options: BeamOptions, *, eos: Collection[int]
) -> list[list[Hypothesis]]:
    """Find the most likely answers to each prompt, all prompts in one batch.

    Args:
        step: the model.
        requests: the prompts. Samplers are not used.
        options: of the search.
        eos: tokens that end a sequence.

    Returns:
        for each prompt up to `num_return_sequences` hypotheses, the best first; fewer where fewer exist.

    Raises:
        InputError: a sequence outgrows the model's context.
        TriformError: onnxruntime failed, or the logits are not numbers.
    """
    searches = [BeamSearch(request, options, eos, most_likely) for request in requests]
    run_searches(step, requests, searches)
    return [search.hypotheses[: options.num_return_sequences] for search in searches]


def beam_sample(
    step: BatchStep,
    requests: Sequence[Request],
    options: BeamOptions,
    generators: Sequence[np.random.Generator],
    *,
    eos: Collection[int],
) -> list[list[Hypothesis]]:
    """Beam search whose candidates are sampled instead of being the most likely ones.

    Args:
        step: the model.
        requests: the prompts. Temperature and truncation belong in their processors.
        options: of the search.
        generators: the random numbers of each prompt, so that its answers do not depend on the others in the batch.
        eos: tokens that end a sequence.

    Returns:
        as `beam_search`.

    Raises:
        InputError: see `beam_search`.
        TriformError: see `beam_search`.
    """
    searches = [
        BeamSearch(request, options, eos, drawn(generator))
        for request, generator in zip(requests, generators, strict=True)
    ]
    run_searches(step, requests, searches)
    return [search.hypotheses[: options.num_return_sequences] for search in searches]


class BeamSearch:
    """The search for one prompt.

    Attributes:
        hypotheses: the best `num_beams` so far, the best first.
    """

    def __init__(self, request: Request, options: BeamOptions, eos: Collection[int], choose: Choose) -> None:
        self.hypotheses: list[Hypothesis] = []
        self._request = request
        self._options = options
        self._eos = np.array(sorted(eos), np.int64)
        self._choose = choose
        # Enough that num_beams of them continue even if every beam's best continuations are all of the ending tokens.
        self._candidates = max(2, 1 + len(eos)) * options.num_beams
        # Prompts included, (beams, length); a single beam until something is generated.
        self._sequences = np.array([request.ids], np.int64)
        self._scores = np.zeros(1, np.float32)

    def advance(self, logits: Table, penalties: NDArray[np.float32] | float = 0.0) -> Branches:
        """Extend every beam by a token.

        Args:
            logits: float32 (beams, vocab_size).
            penalties: subtracted from the log-probabilities, (vocab_size,), before the processors are applied.

        Returns:
            the beams to continue with, the best first; none when the search is over.
        """
        totals = self._scores[:, None] + self._log_probabilities(all_rows(logits), penalties)
        parents, tokens = np.divmod(self._choose(totals.ravel(), self._candidates), totals.shape[1])
        scores = totals[parents, tokens]
        sequences = np.concatenate([self._sequences[parents], tokens[:, None]], axis=1)
        stops = np.isin(tokens, self._eos)
        ends = stops | (self._generated(sequences) == self._request.max_new_tokens)
        self._keep_hypotheses(sequences, scores, stops, ends)
        running = np.flatnonzero(~ends)
        running = running[np.argsort(-scores[running], kind="stable")][: self._options.num_beams]
        self._sequences, self._scores = sequences[running], scores[running]
        if self._is_over():
            running = running[:0]
        return tokens[running], parents[running]

    def _log_probabilities(
        self, logits: NDArray[np.float32], penalties: NDArray[np.float32] | float
    ) -> NDArray[np.float32]:
        table = log_softmax(logits) - np.asarray(penalties, np.float32)
        for row, ids in enumerate(self._sequences):
            table[row] = process(self._request.processors, ids, table[row])
        if self._options.renormalize:
            # A beam that may not go on in any way stays as it is.
            possible = table.max(-1) > -np.inf
            table[possible] = log_softmax(table[possible])
        return table

    def _keep_hypotheses(
        self,
        sequences: NDArray[np.int64],
        scores: NDArray[np.float32],
        stops: NDArray[np.bool_],
        ends: NDArray[np.bool_],
    ) -> None:
        """Add the candidates that end to the hypotheses; only the first `num_beams` count, the others are spares."""
        divisor = self._divisor(self._generated(sequences))
        prompt = len(self._request.ids)
        for index in np.flatnonzero(ends[: self._options.num_beams]):
            tokens = tuple(sequences[index, prompt:].tolist())
            self.hypotheses.append(
                Hypothesis(tokens, float(scores[index] / divisor), "stop" if stops[index] else "length")
            )
        # The sort is stable: of equal scores, the earlier hypothesis is kept.
        self.hypotheses.sort(key=lambda hypothesis: -hypothesis.score)
        del self.hypotheses[self._options.num_beams :]

    def _is_over(self) -> bool:
        options = self._options
        if not len(self._scores):
            return True
        if len(self.hypotheses) < options.num_beams:
            return False
        if options.early_stopping is True:
            return True
        longest = options.early_stopping == "never" and options.length_penalty > 0
        length = self._request.max_new_tokens if longest else self._generated(self._sequences)
        attainable = self._scores[0] / self._divisor(length)
        return bool(attainable <= self.hypotheses[-1].score)

    def _divisor(self, length: int) -> float:
        # Python's own power raises an error where numpy's is infinite.
        with np.errstate(over="ignore"):
            return float(np.float64(length) ** self._options.length_penalty)

    def _generated(self, sequences: NDArray[np.int64]) -> int:
        return int(sequences.shape[1]) - len(self._request.ids)


def most_likely(totals: NDArray[np.floating[Any]], count: int) -> NDArray[np.int64]:
    """Positions of the `count` largest, the largest first; fewer when the others are minus infinity."""
    positions = largest(totals, min(count, len(totals)))
    positions = positions[np.argsort(-totals[positions], kind="stable")][:count]
    return positions[totals[positions] > -np.inf]


def drawn(generator: np.random.Generator) -> Choose:
    """Sample positions without replacement, where each score is a log-probability.

    Adding Gumbel noise and taking the largest is equivalent to drawing one after another
    (https://arxiv.org/abs/1903.06059); the first drawn comes first.
    """

    def choose(totals: NDArray[np.floating[Any]], count: int) -> NDArray[np.int64]:
        return most_likely(totals + generator.gumbel(size=totals.shape), count)

    return choose
