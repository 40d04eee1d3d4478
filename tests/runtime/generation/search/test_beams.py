"""Beam search with a model of a few lines, against an exhaustive search and a slow reference."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.fake_step import FakeStep
from triform.runtime.errors import BundleError, InputError
from triform.runtime.generation.options.beams import BeamOptions
from triform.runtime.generation.sampling import row_generator
from triform.runtime.generation.search.batch import Request
from triform.runtime.generation.search.beams import BeamSearch, beam_sample, beam_search, drawn, most_likely


def every_answer(step, prompt, eos, limit):
    """All sequences that end in `eos` or at the limit, with the sums of their log-probabilities."""
    open_ones = [((), 0.0)]
    for length in range(1, limit + 1):
        longer = []
        for ids, total in open_ones:
            table = step.log_probabilities((*prompt, *ids))
            longer += [((*ids, token), total + table[token]) for token in range(step.vocab_size)]
        open_ones = [one for one in longer if one[0][-1] not in eos]
        yield from (one for one in longer if one[0][-1] in eos or length == limit)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    eos=st.sets(st.integers(0, 2), max_size=2),
    limit=st.integers(1, 4),
    penalty=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
def test_with_room_for_every_sequence_it_is_an_exhaustive_search(seed, eos, limit, penalty):
    step = FakeStep(3, seed)
    answers = [(total / len(ids) ** penalty, ids) for ids, total in every_answer(step, (7, 7), eos, limit)]
    # More beams than there are answers: it never has "all" hypotheses, so it cannot stop early.
    options = BeamOptions(num_beams=100, length_penalty=penalty, num_return_sequences=100)
    (found,) = beam_search(step, [Request([7, 7], limit)], options, eos=eos)
    expected = sorted(answers, reverse=True)
    assert [hypothesis.token_ids for hypothesis in found] == [ids for _, ids in expected]
    assert [hypothesis.score for hypothesis in found] == pytest.approx([score for score, _ in expected], rel=1e-4)
    assert all((one.finish_reason == "stop") == (one.token_ids[-1] in eos) for one in found)


def test_when_all_ending_tokens_lead_every_beam_goes_on():
    """transformers keeps (1 + 3) * 2 candidates for 3 ending tokens and 2 beams, the last of which end nothing."""
    options = BeamOptions(num_beams=2, early_stopping="never")
    search = BeamSearch(Request([7], 5), options, {0, 1, 2}, most_likely)
    tokens, parents = search.advance(np.array([[9, 8, 7, 6, 5, 4, 3, 2]], np.float32))
    assert (tokens.tolist(), parents.tolist()) == ([3, 4], [0, 0])
    # Only the first two candidates count as answers.
    assert [hypothesis.token_ids for hypothesis in search.hypotheses] == [(0,), (1,)]


def slow_beam_search(step, prompt, options, eos, limit):
    """One prompt, plain lists, one line a rule of transformers' `_beam_search`."""
    beams, done = [((), 0.0)], []
    for length in range(1, limit + 1):
        candidates = []
        for ids, total in beams:
            table = step.log_probabilities((*prompt, *ids))
            candidates += [(total + table[token], (*ids, token)) for token in range(step.vocab_size)]
        candidates = sorted(candidates, reverse=True)[: max(2, 1 + len(eos)) * options.num_beams]
        ended = [length == limit or ids[-1] in eos for _, ids in candidates]
        for rank in range(min(options.num_beams, len(candidates))):
            if ended[rank]:
                total, ids = candidates[rank]
                done.append((total / length**options.length_penalty, ids))
        done = sorted(done, reverse=True)[: options.num_beams]
        beams = [(ids, total) for (total, ids), over in zip(candidates, ended, strict=True) if not over]
        beams = beams[: options.num_beams]
        if not beams:
            break
        if len(done) == options.num_beams:
            hopeful = options.early_stopping == "never" and options.length_penalty > 0
            reach = beams[0][1] / (limit if hopeful else length) ** options.length_penalty
            if options.early_stopping is True or reach <= done[-1][0]:
                break
    return done[: options.num_return_sequences]


searches = st.builds(
    lambda beams, penalty, stopping, returned: BeamOptions(beams, penalty, stopping, min(beams, returned)),
    st.integers(1, 5),
    st.sampled_from([-1.0, 0.0, 0.7, 1.0, 2.0]),
    st.sampled_from([True, False, "never"]),
    st.integers(1, 5),
)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    vocab=st.integers(2, 9),
    options=searches,
    eos=st.sets(st.integers(0, 8), max_size=3),
    prompts=st.lists(st.tuples(st.lists(st.integers(0, 8), min_size=1, max_size=5), st.integers(1, 7)), max_size=4),
)
def test_a_batch_of_prompts_equals_a_slow_search_of_each(seed, vocab, options, eos, prompts):
    step = FakeStep(vocab, seed)
    found = beam_search(step, [Request(ids, limit) for ids, limit in prompts], options, eos=eos)
    assert len(found) == len(prompts)
    for (ids, limit), hypotheses in zip(prompts, found, strict=True):
        expected = slow_beam_search(step, ids, options, eos, limit)
        assert [one.token_ids for one in hypotheses] == [ids for _, ids in expected]
        # A likely token's log-probability is a small difference of float32 numbers of some ten units.
        close = pytest.approx([score for score, _ in expected], rel=1e-4, abs=1e-5)
        assert [one.score for one in hypotheses] == close


def test_one_beam_is_greedy_decoding():
    step, ids = FakeStep(50), [1, 2, 3]
    (found,) = beam_search(step, [Request(ids, 20)], BeamOptions(1), eos=())
    for _ in range(20):
        ids = [*ids, int(step.logits(ids).argmax())]
    assert list(found[0].token_ids) == ids[3:]
    assert found[0].finish_reason == "length"


def test_rows_of_prompts_that_are_done_leave_the_batch_and_nothing_is_run_for_nobody():
    step = FakeStep(30)
    beam_search(step, [Request([1], 5), Request([2, 3], 2), Request([4], 1)], BeamOptions(3), eos=())
    assert step.sizes == [3, 6, 3, 3, 3]


def test_no_prompts():
    assert beam_search(FakeStep(3), [], BeamOptions(2), eos=()) == []


def test_processors_see_each_beam_and_its_log_probabilities():
    seen = []

    def watch(ids, logits):
        seen.append(tuple(ids.tolist()))
        assert ids.dtype == np.int64 and logits.dtype == np.float32
        assert math.isclose(float(np.exp(logits).sum()), 1, rel_tol=1e-5)
        return logits

    step = FakeStep(20)
    beam_search(step, [Request([5, 6], 3, processors=[watch])], BeamOptions(2), eos=())
    assert seen[0] == (5, 6)
    assert [len(ids) for ids in seen] == [2, 3, 3, 4, 4]
    assert set(seen[-2:]) == set(step.rows)


def test_a_processor_may_leave_fewer_answers_than_beams():
    def only_count_up(ids, logits):
        result = np.full_like(logits, -np.inf)
        result[ids[-1] + 1] = logits[ids[-1] + 1]
        return result

    request = Request([3], 4, processors=[only_count_up])
    (found,) = beam_search(FakeStep(20), [request], BeamOptions(4, num_return_sequences=4), eos={6})
    assert [(one.token_ids, one.finish_reason) for one in found] == [((4, 5, 6), "stop")]


def test_logits_that_are_no_numbers_are_refused():
    class Broken(FakeStep):
        def logits(self, ids):
            return np.full(5, np.nan, np.float32)

    with pytest.raises(BundleError, match="not numbers"):
        beam_search(Broken(5), [Request([1], 3)], BeamOptions(2), eos=())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_beams": 0}, "`num_beams` must be at least 1, not 0"),
        ({"num_beams": 2, "num_return_sequences": 3}, r"between 1 and `num_beams` \(2\), not 3"),
        ({"num_beams": 2, "num_return_sequences": 0}, "`num_return_sequences`"),
        ({"num_beams": 2, "early_stopping": "always"}, "`early_stopping`"),
        ({"num_beams": 2, "length_penalty": math.nan}, "`length_penalty`"),
    ],
)
def test_options_out_of_range(arguments, message):
    with pytest.raises(InputError, match=message):
        BeamOptions(**arguments)


def test_drawing_without_replacement_has_the_probabilities_of_drawing_one_after_another():
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    choose, draws = drawn(np.random.default_rng(1)), 20_000
    counts = Counter(tuple(choose(np.log(weights).astype(np.float32), 2).tolist()) for _ in range(draws))
    for first, second in itertools.permutations(range(4), 2):
        expected = weights[first] * weights[second] / (1 - weights[first])
        deviation = math.sqrt(expected * (1 - expected) / draws)
        assert abs(counts[first, second] / draws - expected) < 5 * deviation


def test_tokens_of_no_probability_are_not_drawn():
    scores = np.array([0, -np.inf, 0, -np.inf], np.float32)
    assert sorted(drawn(np.random.default_rng(0))(scores, 4).tolist()) == [0, 2]


def test_beam_samples_follow_the_seed_and_not_the_batch():
    step = FakeStep(40, spread=1.0)
    requests = [Request([index, 2], 8) for index in range(3)]
    options = BeamOptions(3, num_return_sequences=2)

    def answers(chosen, seed):
        generators = [row_generator(seed, index) for index in chosen]
        return beam_sample(step, [requests[index] for index in chosen], options, generators, eos={1})

    together = answers(range(3), 5)
    assert together == [answers([index], 5)[0] for index in range(3)]
    assert together != answers(range(3), 6)
    for request, hypotheses in zip(requests, together, strict=True):
        for one in hypotheses:
            ids = list(request.ids)
            total = 0.0
            for token in one.token_ids:
                total += step.log_probabilities(ids)[token]
                ids.append(token)
            assert one.score == pytest.approx(total / len(one.token_ids), rel=1e-4)


def test_never_stopping_early_with_a_penalty_on_length():
    """A negative length penalty favors short answers, so what a beam can still reach is its score now."""
    options = BeamOptions(2, -1.0, "never", 2)
    for seed in range(120):
        step = FakeStep(6, seed, spread=4.0)
        (found,) = beam_search(step, [Request([7], 9)], options, eos={0})
        expected = slow_beam_search(step, (7,), options, {0}, 9)
        assert [hypothesis.token_ids for hypothesis in found] == [ids for _, ids in expected], seed
