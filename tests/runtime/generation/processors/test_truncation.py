"""Filters against transformers on the same logits; those it does not have against their papers, written out slowly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from triform.runtime.generation.processors import truncation
from triform.runtime.generation.processors.mirostat import Mirostat
from triform.runtime.generation.processors.ranking import at_least, largest

NO_IDS = np.zeros(0, np.int64)
# Of a grid, so that tokens are either equally likely or clearly not: transformers compares probabilities, we logits.
GRID = st.integers(-320, 320)
LOGITS = st.lists(GRID, min_size=3, max_size=60).map(lambda x: np.array(x, np.float32) / 16)
DIFFERENT = st.lists(GRID, min_size=3, max_size=60, unique=True).map(lambda x: np.array(x, np.float32) / 16)
LEAST = st.integers(1, 3)
# As many as make ours take its short cuts for large vocabularies.
LARGE = 20_000


def large_logits(seed, spread=3.0):
    return (np.random.default_rng(seed).standard_normal(LARGE) * spread).astype(np.float32)


def kept(ours, logits):
    found = ours(NO_IDS, logits)
    left = np.isfinite(found)
    np.testing.assert_array_equal(found[left], logits[left])
    return set(np.flatnonzero(left).tolist())


def kept_by(theirs, logits):
    """In float64, so that where a token is on the edge is a matter of mathematics."""
    scores = theirs(None, torch.from_numpy(logits.astype(np.float64))[None])[0]
    return set(torch.isfinite(scores).nonzero().flatten().tolist())


def probabilities_of(logits):
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def clear_of(edge, values, margin=1e-9):
    """Whether none of the values is so near the edge that rounding decides."""
    return np.abs(np.asarray(values) - edge).min() > margin


@given(LOGITS, st.integers(1, 70), LEAST)
def test_top_k(logits, k, least):
    assert kept(truncation.top_k(k, least), logits) == kept_by(tf.TopKLogitsWarper(k, min_tokens_to_keep=least), logits)


@given(LOGITS, st.floats(0.05, 0.99), LEAST)
def test_top_p(logits, p, least):
    probabilities = probabilities_of(logits)
    assume(clear_of(p, np.cumsum(np.sort(probabilities)[::-1])))
    found = kept(truncation.top_p(p, least), logits)
    expected = kept_by(tf.TopPLogitsWarper(p, min_tokens_to_keep=least), logits)
    # Where several tokens are equally likely at the edge, any of them is a right answer.
    assert sorted(probabilities[list(found)]) == sorted(probabilities[list(expected)])


@given(LOGITS, st.floats(0.001, 0.99), LEAST)
def test_min_p(logits, p, least):
    probabilities = probabilities_of(logits)
    assume(clear_of(p, probabilities / probabilities.max(), 1e-5))
    expected = kept_by(tf.MinPLogitsWarper(p, min_tokens_to_keep=least), logits)
    found = kept(truncation.min_p(p, least), logits)
    # transformers keeps any of those that tie for the last place of `least`, we all of them.
    assert found >= expected
    assert found == expected or logits[list(found)].min() == logits[list(expected)].min()


@given(DIFFERENT, st.floats(0.05, 0.95))
def test_typical_p(logits, mass):
    probabilities = probabilities_of(logits)
    with np.errstate(divide="ignore"):
        surprise = -np.log(probabilities)
    distance = np.abs(surprise - np.nansum(probabilities * surprise))
    # Tokens as near as another, or that another's place in the order decides on, are a matter of rounding.
    assume(np.diff(np.sort(distance)).min() > 1e-6)
    assume(clear_of(mass, np.cumsum(probabilities[np.argsort(distance)])))
    assert kept(truncation.typical_p(mass), logits) == kept_by(tf.TypicalLogitsWarper(mass), logits)


@given(LOGITS, st.floats(0.0001, 0.9), LEAST)
def test_epsilon_cutoff(logits, epsilon, least):
    assume(clear_of(0, np.log(probabilities_of(logits)) - math.log(epsilon), 1e-5))
    expected = kept_by(tf.EpsilonLogitsWarper(epsilon, min_tokens_to_keep=least), logits)
    assert kept(truncation.epsilon_cutoff(epsilon, least), logits) == expected


@given(LOGITS, st.floats(0.0001, 0.9), LEAST)
def test_eta_cutoff(logits, epsilon, least):
    logs = np.log(probabilities_of(logits))
    entropy = -(np.exp(logs) * logs).sum()
    # transformers holds epsilon in float32, and compares with what comes of it.
    assume(clear_of(0, logs - min(math.log(epsilon), math.log(epsilon) / 2 - entropy), 1e-5))
    expected = kept_by(tf.EtaLogitsWarper(epsilon, min_tokens_to_keep=least), logits)
    assert kept(truncation.eta_cutoff(epsilon, least), logits) == expected


@pytest.mark.parametrize("seed", range(4))
def test_large_vocabularies(seed):
    """The short cuts: numbers that are spread and numbers that are nearly alike, largest ones side by side."""
    logits = large_logits(seed, (3.0, 0.5, 1e-3, 6.0)[seed])
    logits[100:160] += 5
    assert kept(truncation.top_k(50), logits) == kept_by(tf.TopKLogitsWarper(50), logits)
    assert kept(truncation.top_k(5000), logits) == kept_by(tf.TopKLogitsWarper(5000), logits)
    assert kept(truncation.min_p(0.1), logits) == kept_by(tf.MinPLogitsWarper(0.1), logits)
    for ours, theirs in [
        (truncation.top_p(0.3), tf.TopPLogitsWarper(0.3)),
        (truncation.top_p(0.95), tf.TopPLogitsWarper(0.95)),
        (truncation.typical_p(0.3), tf.TypicalLogitsWarper(0.3)),
        (truncation.typical_p(0.95), tf.TypicalLogitsWarper(0.95)),
        (truncation.epsilon_cutoff(3e-4), tf.EpsilonLogitsWarper(3e-4)),
        (truncation.eta_cutoff(3e-4), tf.EtaLogitsWarper(3e-4)),
    ]:
        # Ours adds up so many numbers in float32: tokens on the edge may be on its other side.
        differing = kept(ours, logits) ^ kept_by(theirs, logits)
        assert probabilities_of(logits)[list(differing)].sum() < 2e-4, theirs


@given(st.integers(0, 2**32), st.integers(1, 400), st.booleans())
@settings(max_examples=40)
def test_the_largest_of_many_are_found_without_sorting(seed, count, crowded):
    values = np.random.default_rng(seed).integers(0, 5000, LARGE + seed % 64).astype(np.float32)
    if crowded:
        # All large numbers in a few columns of the table that is looked at.
        values[:: (len(values) // 64)] += 5000
    bound = np.sort(values)[-count]
    np.testing.assert_array_equal(largest(values, count), np.flatnonzero(values >= bound))
    np.testing.assert_array_equal(at_least(values, float(bound)), np.flatnonzero(values >= bound))


@given(LOGITS, st.floats(0.1, 5))
def test_top_n_sigma(logits, n):
    """Section 3 of the paper: keep l >= max(l) - n * sigma(l)."""
    values = logits.astype(np.float64).tolist()
    mean = sum(values) / len(values)
    sigma = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    assume(clear_of(max(values) - n * sigma, values, 1e-4))
    expected = {index for index, value in enumerate(values) if value >= max(values) - n * sigma}
    assert kept(truncation.top_n_sigma(n), logits) == expected


def test_top_n_sigma_does_not_count_banned_tokens():
    logits = np.array([0, 1, 2, 3, -np.inf], np.float32)
    # sigma of 0, 1, 2, 3 is 1.118
    assert kept(truncation.top_n_sigma(1), logits) == {2, 3}


@given(LOGITS, st.floats(0.01, 0.5), st.floats(0, 1), st.integers(0, 2**32))
def test_xtc(logits, threshold, probability, seed):
    """Of the tokens that reach the threshold all but the least likely go, if the draw is below the probability."""
    probabilities = probabilities_of(logits)
    assume(clear_of(threshold, probabilities))
    expected = set(range(len(logits)))
    if np.random.default_rng(seed).random() < probability:
        reaching = sorted((index for index in expected if probabilities[index] >= threshold), key=lambda i: logits[i])
        expected -= set(reaching[1:])
    found = kept(truncation.xtc(threshold, probability, np.random.default_rng(seed)), logits)
    # Of equally likely ones any may stay.
    assert sorted(logits[list(found)]) == sorted(logits[list(expected)])


@pytest.mark.parametrize(("least", "expected"), [(3, {1, 2, 3}), (4, {0, 1, 2, 3})])
def test_xtc_leaves_enough_tokens(least, expected):
    """Two of four reach 0.3; without the likelier one three are left, and nothing goes where that is too few."""
    logits = np.log(np.array([0.45, 0.35, 0.1, 0.1], np.float32))
    assert kept(truncation.xtc(0.3, 1.0, np.random.default_rng(0), least), logits) == expected


def mirostat_by_its_paper(rows, tokens, tau, eta):
    """Algorithm 2: truncate where the surprise exceeds mu, renormalize, draw, move mu by the error."""
    mu = 2 * tau
    for logits, token in zip(rows, tokens, strict=True):
        probabilities = probabilities_of(logits)
        stays = [index for index, p in enumerate(probabilities) if -math.log2(p) <= mu]
        stays = stays or [int(probabilities.argmax())]
        yield set(stays), mu
        surprise = -math.log2(probabilities[token(stays)] / probabilities[stays].sum())
        mu -= eta * (surprise - tau)


@pytest.mark.parametrize(("tau", "eta"), [(3.0, 0.1), (1.0, 0.5), (6.0, 1.0)])
def test_mirostat(tau, eta):
    generator = np.random.default_rng(0)
    rows = (generator.standard_normal((60, 300)) * 3).astype(np.float32)
    places = generator.random(60)
    picks = [lambda stays, place=place: stays[int(place * len(stays))] for place in places]
    step, ids = Mirostat(tau, eta), [5]
    for logits, pick, (stays, mu) in zip(rows, picks, mirostat_by_its_paper(rows, picks, tau, eta), strict=True):
        found = kept(lambda _, row: step(np.array(ids), row), logits)
        assert found == stays
        assert step.mu == pytest.approx(mu, rel=1e-5)
        ids.append(pick(sorted(stays)))


@pytest.mark.parametrize(
    "step",
    [truncation.top_k(2), truncation.top_p(0.5), truncation.min_p(0.5), truncation.typical_p(0.5),
     truncation.epsilon_cutoff(0.1), truncation.eta_cutoff(0.1), truncation.top_n_sigma(1), Mirostat(1, 0.1)],
)  # fmt: skip
def test_banned_tokens_stay_banned_and_nothing_is_written(step):
    logits = np.array([1.0, -np.inf, 0.9, -np.inf, 0.8, -3], np.float32)
    before = logits.copy()
    found = step(NO_IDS, logits)
    np.testing.assert_array_equal(logits, before)
    assert np.isneginf(found[[1, 3]]).all()
    assert np.isfinite(found).any()
    nothing = np.full(6, -np.inf, np.float32)
    assert step(NO_IDS, nothing) is nothing


@pytest.mark.parametrize(
    "step",
    [
        truncation.top_k(1),
        truncation.top_p(0.5),
        truncation.min_p(0.5),
        truncation.typical_p(0.5),
        truncation.epsilon_cutoff(0.5),
        truncation.eta_cutoff(0.5),
        truncation.top_n_sigma(0.1),
    ],
)
def test_one_token_is_enough_unless_more_are_asked_for(step):
    """The first has a probability of 0.94."""
    assert kept(step, np.array([9, 5, 5, 5, 5], np.float32)) == {0}


def test_as_many_as_are_asked_for_are_not_too_few():
    """Two reach half of the largest probability, so a third is taken only where three are to be left."""
    logits = np.log(np.array([0.4, 0.3, 0.16, 0.14], np.float32))
    assert [kept(truncation.min_p(0.5, least), logits) for least in (1, 2, 3)] == [{0, 1}, {0, 1}, {0, 1, 2}]


def test_top_choices_are_excluded_down_to_one():
    logits = np.log(np.array([0.5, 0.45, 0.05], np.float32))
    assert kept(truncation.xtc(0.4, 1.0, np.random.default_rng(0)), logits) == {1, 2}
    two = np.log(np.array([0.5, 0.5], np.float32))
    assert kept(truncation.xtc(0.5, 1.0, np.random.default_rng(0)), two) == {1}
