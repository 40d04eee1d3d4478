"""Best-of sampling: several sampled answers per prompt, ranked by their mean log-probability."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np

from triform.runtime.arithmetic import log_probability
from triform.runtime.generation.loop import GrowingRow
from triform.runtime.generation.processors.contract import Processor, Temperature
from triform.runtime.generation.processors.truncation import weights_of
from triform.runtime.generation.sampling import Sampler, draw, greedy, process
from triform.runtime.generation.search.batch import Branches, Hypothesis, Request, run_searches
from triform.runtime.generation.steps import BatchStep, FinishReason, Ids, Logits
from triform.runtime.likeliest import Scores, Table, all_logits, all_rows

# Called with the ids so far and the logits after them; returns a token and its log-probability.
Choice = Callable[[Ids, Logits], tuple[int, float]]


def best_of(
    step: BatchStep, requests: Sequence[Request], choices: Sequence[Sequence[Choice]], *, eos: Collection[int]
) -> list[list[Hypothesis]]:
    """Generate one answer for each choice of a prompt, all prompts in one batch; each prompt is prefilled once.

    Args:
        step: the model.
        requests: the prompts. Their own samplers and processors are not used.
        choices: for each prompt, the functions that choose the tokens of its answers, at least one.
        eos: tokens that end a sequence.

    Returns:
        for each prompt all its answers, the best first. The score is the mean log-probability of an answer's tokens,
        an end-of-sequence token included.

    Raises:
        InputError: a sequence outgrows the model's context.
        TriformError: onnxruntime failed, or the logits are not numbers.
    """
    searches = [_Answers(request, chosen, eos) for request, chosen in zip(requests, choices, strict=True)]
    run_searches(step, requests, searches)
    return [sorted(search.finished, key=lambda hypothesis: -hypothesis.score) for search in searches]


def drawn_by(sampler: Sampler) -> Choice:
    """A choice by a sampler, with the log-probability from the unprocessed logits."""

    def choose(ids: Ids, logits: Logits) -> tuple[int, float]:
        token = sampler(ids, logits)
        return token, log_probability(logits, token)

    return choose


def allowed_by(processors: Sequence[Processor], temperature: float, generator: np.random.Generator | None) -> Choice:
    """A choice among the tokens that processors allow, with the log-probability among those at temperature 1.

    Args:
        processors: the row's.
        temperature: 0 takes the most likely token.
        generator: the random numbers, for a temperature above 0.

    Returns:
        the choice. It raises BundleError where the logits hold NaN or an infinity, and InputError where the processors
        ban every token.
    """
    warm = Temperature(temperature) if temperature and generator is not None else None

    def choose(ids: Ids, logits: Logits) -> tuple[int, float]:
        allowed = process(processors, ids, logits)
        # Where a token is drawn, only for the errors that it raises.
        token = greedy(allowed)
        if warm is not None and generator is not None:
            token = draw(weights_of(warm(ids, allowed)), generator.random())
        return token, log_probability(allowed, token)

    return choose


class _Answers:
    """The answers to one prompt, as one search."""

    def __init__(self, request: Request, choices: Sequence[Choice], eos: Collection[int]) -> None:
        self._answers = [_Answer(request, choice, eos) for choice in choices]
        # Each unfinished answer and its row in the logits; at first they all share the prompt's single row.
        self._live = [(answer, 0) for answer in self._answers]

    @property
    def finished(self) -> list[Hypothesis]:
        """The answers, in the order of their choices."""
        return [answer.hypothesis() for answer in self._answers]

    def advance(self, logits: Table) -> Branches:
        """Choose a token for each answer. Arguments and result as `PromptSearch`."""
        rows = all_rows(logits)
        unfinished = [(answer, row) for answer, row in self._live if answer.advance(rows[row])]
        self._live = [(answer, index) for index, (answer, _) in enumerate(unfinished)]
        tokens = np.array([answer.last for answer, _ in unfinished], np.int64)
        return tokens, np.array([row for _, row in unfinished], np.int64)


class _Answer:
    """An answer, and the sum of its tokens' log-probabilities."""

    def __init__(self, request: Request, choice: Choice, eos: Collection[int]) -> None:
        self._row = GrowingRow(request.ids, self._chosen, eos=eos, max_new_tokens=request.max_new_tokens)
        self._choice, self._total = choice, 0.0
        self._reason: FinishReason | None = None

    def advance(self, logits: Logits) -> bool:
        """Choose the next token; returns whether the answer continues after it."""
        self._reason = self._row.choose(logits).finish_reason
        return self._reason is None

    @property
    def last(self) -> int:
        return int(self._row.ids[-1])

    def hypothesis(self) -> Hypothesis:
        """The answer with its score."""
        tokens = self._row.answer
        return Hypothesis(tokens, self._total / len(tokens), self._reason or "length")

    def _chosen(self, ids: Ids, scores: Scores) -> int:
        token, logprob = self._choice(ids, all_logits(scores))
        self._total += logprob
        return token
