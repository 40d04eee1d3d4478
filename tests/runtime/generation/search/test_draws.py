"""Several answers to a prompt: chosen one by one, with scores that are means of log-probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.fake_step import FakeStep
from triform.runtime.errors import BundleError, InputError
from triform.runtime.generation.search.batch import Request
from triform.runtime.generation.search.draws import allowed_by, best_of, drawn_by

LOGITS = np.log(np.array([0.1, 0.6, 0.3], np.float32))


def banned(*tokens):
    def process(ids, logits):
        result = logits.copy()
        result[list(tokens)] = -np.inf
        return result

    return process


def test_a_sampler_and_the_probability_before_its_processors():
    token, logprob = drawn_by(lambda ids, logits: 2)(np.zeros(0, np.int64), LOGITS)
    assert token == 2 and logprob == pytest.approx(np.log(0.3), abs=1e-6)


def test_among_what_is_allowed():
    """Without the likeliest token, the others have a quarter and three."""
    for temperature, generator in ((0.0, None), (0.0, np.random.default_rng(0)), (1.0, None)):
        token, logprob = allowed_by([banned(1)], temperature, generator)(np.zeros(0, np.int64), LOGITS)
        assert token == 2 and logprob == pytest.approx(np.log(0.75), abs=1e-6)


@pytest.mark.parametrize(("temperature", "shares"), [(1.0, [0.25, 0.75]), (0.5, [0.1, 0.9])])
def test_drawn_at_a_temperature(temperature, shares):
    """At half the temperature probabilities are squared; the one that is told is of temperature 1."""
    choose = allowed_by([banned(1)], temperature, np.random.default_rng(0))
    drawn = [choose(np.zeros(0, np.int64), LOGITS) for _ in range(2000)]
    counts = [sum(token == one for token, _ in drawn) / 2000 for one in (0, 2)]
    assert counts == pytest.approx(shares, abs=0.04)
    told = dict(drawn)
    assert told == {0: pytest.approx(np.log(0.25), abs=1e-6), 2: pytest.approx(np.log(0.75), abs=1e-6)}


@pytest.mark.parametrize("generator", [None, np.random.default_rng(0)])
def test_what_cannot_be_chosen(generator):
    with pytest.raises(InputError):
        allowed_by([banned(0, 1, 2)], 1.0, generator)(np.zeros(0, np.int64), LOGITS)
    with pytest.raises(BundleError):
        allowed_by([], 1.0, generator)(np.zeros(0, np.int64), np.array([0, np.nan], np.float32))


def nth_best(rank):
    """Chooses the token of a rank, with its log-probability."""

    def choose(ids, logits):
        token = int(np.argsort(-logits)[rank])
        return token, float(logits[token] - np.log(np.exp(logits.astype(np.float64)).sum()))

    return choose


def followed(step, ids, rank, most, eos=()):
    """The answer of such a choice, and the mean of its log-probabilities, one token after another."""
    answer, total = [], 0.0
    while len(answer) < most:
        logprobs = step.log_probabilities([*ids, *answer])
        token = int(np.argsort(-logprobs)[rank])
        answer.append(token)
        total += logprobs[token]
        if token in eos:
            return answer, total / len(answer), "stop"
    return answer, total / len(answer), "length"


@pytest.mark.parametrize("eos", [(), (0,), (1, 3)])
def test_each_choice_makes_an_answer_of_its_own(eos):
    prompts, ranks = [[1, 2], [3]], [[0, 1, 2], [1]]
    step = FakeStep(5)
    requests = [Request(ids=ids, max_new_tokens=most) for ids, most in zip(prompts, (4, 6), strict=True)]
    found = best_of(step, requests, [[nth_best(rank) for rank in each] for each in ranks], eos=eos)
    for ids, each, most, answers in zip(prompts, ranks, (4, 6), found, strict=True):
        expected = sorted((followed(step, ids, rank, most, eos) for rank in each), key=lambda answer: -answer[1])
        assert [list(one.token_ids) for one in answers] == [tokens for tokens, _, _ in expected]
        assert [one.score for one in answers] == pytest.approx([score for _, score, _ in expected], abs=1e-5)
        assert [one.finish_reason for one in answers] == [reason for _, _, reason in expected]
    if not eos:
        # The prompts are read once each, and then there is a row for each answer that goes on.
        assert step.sizes == [2, 4, 4, 4, 1, 1]
