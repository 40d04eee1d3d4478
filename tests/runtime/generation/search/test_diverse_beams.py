"""Groups of beams against a slow reading of the paper (https://arxiv.org/abs/1610.02424), and the best of n samples."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.fake_step import FakeStep
from triform.runtime.errors import BundleError, InputError
from triform.runtime.generation.options.beams import BeamOptions
from triform.runtime.generation.search.batch import Request
from triform.runtime.generation.search.beams import beam_search
from triform.runtime.generation.search.diverse_beams import diverse_beam_search
from triform.runtime.generation.search.draws import allowed_by, best_of, drawn_by


def slow_groups(step, prompt, beams, groups, strength, eos, limit):
    """Algorithm 1 with the Hamming diversity, hypotheses kept and searches stopped as in beam search."""
    size = beams // groups
    running, done = [[((), 0.0)] for _ in range(groups)], [[] for _ in range(groups)]
    for length in range(1, limit + 1):
        chosen = Counter()
        for group in range(groups):
            candidates = []
            for ids, score in running[group]:
                table = step.log_probabilities((*prompt, *ids))
                for token in range(step.vocab_size):
                    candidates.append((score + table[token] - strength * chosen[token], (*ids, token)))
            candidates = sorted(candidates, reverse=True)[: max(2, 1 + len(eos)) * size]
            ended = [candidate for candidate in candidates[:size] if length == limit or candidate[1][-1] in eos]
            done[group] += [(score / length, ids) for score, ids in ended]
            done[group] = sorted(done[group], reverse=True)[:size]
            going = [candidate for candidate in candidates if length < limit and candidate[1][-1] not in eos][:size]
            running[group] = [(ids, score) for score, ids in going]
            if len(done[group]) == size and going and going[0][0] / length <= done[group][-1][0]:
                running[group] = []
            chosen.update(ids[-1] for ids, _ in running[group])
    return sorted((one for group in done for one in group), reverse=True)


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocab=st.integers(3, 12),
    size=st.integers(1, 3),
    groups=st.integers(1, 4),
    strength=st.sampled_from([0.0, 0.5, 3.0]),
    eos=st.sets(st.integers(0, 11), max_size=2),
    prompts=st.lists(st.tuples(st.lists(st.integers(0, 8), min_size=1, max_size=4), st.integers(1, 6)), max_size=3),
)
def test_groups_equal_a_slow_search(seed, vocab, size, groups, strength, eos, prompts):
    step, beams = FakeStep(vocab, seed), size * groups
    found = diverse_beam_search(
        step,
        [Request(ids, limit) for ids, limit in prompts],
        BeamOptions(beams, num_return_sequences=beams),
        num_beam_groups=groups,
        diversity_penalty=strength,
        eos=eos,
    )
    for (ids, limit), hypotheses in zip(prompts, found, strict=True):
        expected = slow_groups(step, ids, beams, groups, strength, eos, limit)
        assert [one.score for one in hypotheses] == pytest.approx([score for score, _ in expected], rel=1e-4)
        # Two groups may find the same, with scores that differ only by rounding.
        assert Counter(one.token_ids for one in hypotheses) == Counter(answer for _, answer in expected)


def test_one_group_is_beam_search_and_a_penalty_spreads_more_of_them():
    step, requests = FakeStep(200), [Request([1, 2], 6), Request([3], 6)]
    options = BeamOptions(6, num_return_sequences=6)

    def groups(count, penalty):
        return diverse_beam_search(step, requests, options, num_beam_groups=count, diversity_penalty=penalty, eos=())

    assert groups(1, 1.0) == beam_search(step, requests, options, eos=())
    for alike, diverse in zip(groups(6, 0.0), groups(6, 50.0), strict=True):
        assert len({one.token_ids for one in alike}) == 1
        for place in range(6):
            assert len({one.token_ids[place] for one in diverse}) == 6


@pytest.mark.parametrize(("groups", "penalty"), [(4, 1.0), (0, 1.0), (2, -1.0), (2, float("nan"))])
def test_numbers_that_do_not_fit(groups, penalty):
    with pytest.raises(InputError, match=r"`num_beam_groups` must divide|`diversity_penalty` must be 0 or more"):
        diverse_beam_search(FakeStep(9), [], BeamOptions(6), num_beam_groups=groups, diversity_penalty=penalty, eos=())


def test_best_of_ranks_by_the_mean_log_probability_of_the_model():
    step, eos = FakeStep(12, spread=1.0), {5}
    answers = {1: [[5], [2, 3, 5], [4, 4, 4, 4, 4]], 9: [[1, 2, 5], [8, 8, 8, 8, 8], [7, 5]]}

    def scripted(prompt, answer):
        def choose(ids, logits):
            assert (logits == step.logits(ids)).all()
            return answer[len(ids) - int(prompt == 9) - 1]

        return drawn_by(choose)

    choices = [[scripted(prompt, answer) for answer in answers[prompt]] for prompt in (1, 9)]
    found = best_of(step, [Request([1], 5), Request([9, 9], 5)], choices, eos=eos)
    for prompt, hypotheses in zip(((1,), (9, 9)), found, strict=True):
        expected = []
        for answer in answers[prompt[0]]:
            parts = [step.log_probabilities((*prompt, *answer[:end]))[token] for end, token in enumerate(answer)]
            expected.append((sum(parts) / len(parts), tuple(answer)))
        expected.sort(reverse=True)
        assert [one.token_ids for one in hypotheses] == [answer for _, answer in expected]
        assert [one.score for one in hypotheses] == pytest.approx([score for score, _ in expected], rel=1e-5)
        assert all((one.finish_reason == "stop") == (one.token_ids[-1] == 5) for one in hypotheses)
    # Six answers at first, of which one ends at once; then one more ends after two tokens, and two after three.
    assert step.sizes == [2, 5, 4, 2, 2]


def only(*tokens):
    """A processor that bans all other tokens."""
    return lambda ids, logits: np.where(np.isin(np.arange(len(logits)), tokens), logits, np.float32(-np.inf))


@pytest.mark.parametrize("temperature", [0.0, 0.5])
def test_what_is_drawn_is_allowed_and_scored_among_what_is(temperature):
    """Weights of 1, 2, 3 and 4, of which the second and the third are allowed: 2/5 and 3/5; squared, 4/13 and 9/13."""
    logits = np.log(np.arange(1, 5)).astype(np.float32)
    choose = allowed_by([only(1, 2)], temperature, np.random.default_rng(0))
    found = [choose(np.zeros(1, np.int64), logits) for _ in range(2000)]
    for token, logprob in found:
        assert logprob == pytest.approx(np.log({1: 2 / 5, 2: 3 / 5}[token]), rel=1e-5)
    share = np.mean([token == 2 for token, _ in found])
    assert share == (1 if temperature == 0 else pytest.approx(9 / 13, abs=0.05))


@pytest.mark.parametrize("temperature", [0.0, 0.5])
@pytest.mark.parametrize("processors", [[], [only(0, 1, 2)]])
def test_nothing_is_drawn_from_what_are_no_numbers(temperature, processors):
    choose = allowed_by(processors, temperature, np.random.default_rng(0))
    for value in (np.nan, np.inf):
        with pytest.raises(BundleError, match="not numbers"):
            choose(np.zeros(1, np.int64), np.array([0, value, 1], np.float32))
    with pytest.raises(InputError, match="every token is banned"):
        choose(np.zeros(1, np.int64), np.full(3, -np.inf, np.float32))
