"""Penalties and constraints against transformers' processors on the same rows; DRY against its description."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import logits_process

from triform.runtime.generation.processors import bans as constraints
from triform.runtime.generation.processors import penalties
from triform.runtime.generation.processors.contract import Temperature

VOCAB = 24
LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=VOCAB, max_size=VOCAB).map(lambda x: np.array(x, np.float32))
# Few different ids, so that repetitions are the rule.
IDS = st.lists(st.integers(0, 5), min_size=1, max_size=30).map(lambda x: np.array(x, np.int64))
TOKENS = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=4, unique=True)
STRENGTHS = st.floats(0.1, 5)


def same(ours, theirs, ids, logits):
    """Both give the same scores, and ours leaves its input as it was."""
    before = logits.copy()
    found = ours(ids, logits)
    expected = theirs(torch.from_numpy(ids)[None], torch.from_numpy(logits.copy())[None])[0].numpy()
    assert found.dtype == np.float32
    # Two units in the last place of a float32 of 20, which is as large as logits get here.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=4e-6)
    np.testing.assert_array_equal(logits, before)


@given(IDS, LOGITS, STRENGTHS)
def test_repetition_penalty(ids, logits, penalty):
    same(penalties.repetition_penalty(penalty), tf.RepetitionPenaltyLogitsProcessor(penalty), ids, logits)


@given(IDS, LOGITS, STRENGTHS, IDS)
def test_encoder_repetition_penalty(ids, logits, penalty, encoder_ids):
    theirs = logits_process.EncoderRepetitionPenaltyLogitsProcessor(penalty, torch.from_numpy(encoder_ids)[None])
    same(penalties.encoder_repetition_penalty(penalty, encoder_ids), theirs, ids, logits)


@given(IDS, LOGITS, st.integers(1, 5))
def test_no_repeat_ngram(ids, logits, size):
    same(penalties.no_repeat_ngram(size), tf.NoRepeatNGramLogitsProcessor(size), ids, logits)


@given(IDS, LOGITS, st.integers(1, 5), IDS)
def test_encoder_no_repeat_ngram(ids, logits, size, encoder_ids):
    theirs = logits_process.EncoderNoRepeatNGramLogitsProcessor(size, torch.from_numpy(encoder_ids))
    same(penalties.encoder_no_repeat_ngram(size, encoder_ids), theirs, ids, logits)


@given(IDS, LOGITS, st.integers(0, 10), st.floats(0.5, 2), TOKENS, st.integers(0, 10))
def test_exponential_decay(ids, logits, start, factor, eos, prompt_length):
    theirs = logits_process.ExponentialDecayLengthPenalty((start, factor), eos, prompt_length)
    same(penalties.exponential_decay_length_penalty(start, factor, eos, prompt_length), theirs, ids, logits)


SEQUENCES = st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=3), min_size=1, max_size=5)


@given(IDS, LOGITS, SEQUENCES, st.floats(-5, 5))
def test_sequence_bias(ids, logits, sequences, bias):
    biases = {tuple(sequence): bias + index for index, sequence in enumerate(sequences)}
    same(constraints.sequence_bias(biases), tf.SequenceBiasLogitsProcessor(biases), ids, logits)


@given(IDS, LOGITS, SEQUENCES, TOKENS)
def test_bad_words(ids, logits, sequences, eos):
    same(
        constraints.bad_words(sequences, eos), tf.NoBadWordsLogitsProcessor([*sequences, [23]], [*eos, 23]), ids, logits
    )


@given(IDS, LOGITS, TOKENS, st.integers(0, 20))
def test_lengths_and_beginnings(ids, logits, tokens, length):
    same(constraints.suppress(tokens), tf.SuppressTokensLogitsProcessor(tokens), ids, logits)
    begin = logits_process.SuppressTokensAtBeginLogitsProcessor(tokens, length)
    same(constraints.suppress_at_begin(tokens, length), begin, ids, logits)
    same(constraints.min_length(length, tokens), tf.MinLengthLogitsProcessor(length, tokens), ids, logits)
    least = tf.MinNewTokensLengthLogitsProcessor(3, length, tokens)
    same(constraints.min_length(3 + length, tokens), least, ids, logits)
    same(constraints.forced_bos(tokens[0]), tf.ForcedBOSTokenLogitsProcessor(tokens[0]), ids, logits)
    same(constraints.forced_eos(tokens, length), tf.ForcedEOSTokenLogitsProcessor(length, tokens), ids, logits)


@given(IDS, LOGITS, st.floats(0.01, 10))
def test_temperature(ids, logits, temperature):
    same(Temperature(temperature), tf.TemperatureLogitsWarper(temperature), ids, logits)


@pytest.mark.parametrize("scale", [1, 100])
def test_a_temperature_close_to_zero_leaves_the_most_likely_tokens(scale):
    found = Temperature(1e-300)(np.zeros(0, np.int64), np.array([1.0, 3.0, 3.0, -2.0], np.float32) * scale)
    np.testing.assert_array_equal(np.exp(found.astype(np.float64) - found.max()), [0, 1, 1, 0])


def test_forced_tokens_at_their_places():
    logits = np.arange(4, dtype=np.float32)
    step = constraints.forced_tokens({2: 1, 3: 0})
    for length, left in ((1, {0, 1, 2, 3}), (2, {1}), (3, {0}), (4, {0, 1, 2, 3})):
        found = step(np.zeros(length, np.int64), logits)
        assert set(np.flatnonzero(np.isfinite(found)).tolist()) == left


@given(IDS, LOGITS, st.floats(-2, 2), st.integers(0, 30))
def test_frequency_and_presence_follow_openais_formula(ids, logits, penalty, prompt_length):
    """mu[j] - c[j] * frequency - (c[j] > 0) * presence, with c the counts of generated tokens."""
    counts = np.array([ids[prompt_length:].tolist().count(token) for token in range(VOCAB)])
    found = penalties.frequency_penalty(penalty, prompt_length)(ids, logits)
    np.testing.assert_allclose(found, logits - counts * penalty, rtol=1e-5, atol=1e-5)
    found = penalties.presence_penalty(penalty, prompt_length)(ids, logits)
    np.testing.assert_allclose(found, logits - (counts > 0) * penalty, rtol=1e-5, atol=1e-5)


def dry_by_its_description(ids, logits, multiplier, base, allowed_length, breakers):
    """Try every token: how long a sequence at the end of the text, with it, has been there before?

    A match may not hold a breaker, and is counted up to 50 tokens.
    """
    expected = logits.copy()
    for token in range(VOCAB):
        longest = 0
        for place in range(1, len(ids)):
            if ids[place] != token:
                continue
            length = 0
            while length < min(place, 50) and ids[place - 1 - length] == ids[len(ids) - 1 - length]:
                if ids[place - 1 - length] in breakers:
                    break
                length += 1
            longest = max(longest, length)
        if longest >= allowed_length and token not in breakers:
            expected[token] -= multiplier * base ** (longest - allowed_length)
    return expected


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=80).map(np.array),
    LOGITS,
    st.floats(0.1, 2),
    st.floats(1, 2),
    st.integers(1, 4),
    st.sets(st.integers(0, 3), max_size=1),
)
def test_dry(ids, logits, multiplier, base, allowed_length, breakers):
    found = penalties.dry(multiplier, base, allowed_length, breakers)(ids, logits)
    expected = dry_by_its_description(ids.tolist(), logits, multiplier, base, allowed_length, breakers)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_dry_counts_no_further_than_fifty():
    ids = np.full(120, 7)
    found = penalties.dry(1, 1.1, 2, ())(ids, np.zeros(VOCAB, np.float32))
    assert found[7] == pytest.approx(-(1.1**48))
    assert np.count_nonzero(found) == 1


def test_ids_beyond_the_head_are_left_alone():
    """An embedding table may have more rows than there are logits."""
    ids, logits = np.array([1, 99, 1, 99, 1]), np.ones(VOCAB, np.float32)
    assert penalties.repetition_penalty(2.0)(ids, logits).tolist() == [1, 0.5] + [1] * (VOCAB - 2)
    for step in (penalties.no_repeat_ngram(2), penalties.dry(1, 2, 1, ())):
        assert step(ids, logits) is logits


@pytest.mark.parametrize("token", [VOCAB - 1, VOCAB, VOCAB + 1])
def test_the_first_id_beyond_the_head(token):
    """What happens to it cannot be seen, and nothing happens to the others."""
    ids, logits = np.array([3, token, 3]), np.full(VOCAB, -2, np.float32)
    steps = {
        penalties.repetition_penalty(2.0): (-4, -4),
        penalties.encoder_repetition_penalty(2.0, ids): (-1, -1),
        penalties.no_repeat_ngram(2): (-2, -np.inf),
        penalties.encoder_no_repeat_ngram(2, ids): (-2, -np.inf),
        penalties.dry(1, 2, 1, ()): (-2, -3),
    }
    for step, (of_three, of_token) in steps.items():
        expected = np.full(VOCAB + 2, -2, np.float32)
        expected[3], expected[token] = of_three, of_token
        assert step(ids, logits).tolist() == expected[:VOCAB].tolist()


@pytest.mark.parametrize(
    "step",
    [
        penalties.frequency_penalty(1, 5),
        penalties.frequency_penalty(1, 3),
        penalties.presence_penalty(1, 5),
        penalties.presence_penalty(1, 3),
        penalties.no_repeat_ngram(3),
        penalties.dry(1, 2, 2, ()),
        penalties.exponential_decay_length_penalty(0, 2, [1], 5),
        constraints.sequence_bias({(7, 8): 1.0}),
        constraints.min_length(2, [1]),
        constraints.forced_bos(1),
        constraints.forced_eos([1], 9),
        constraints.suppress_at_begin([1], 9),
    ],
)
def test_the_input_itself_comes_back_when_nothing_changes(step):
    logits = np.zeros(VOCAB, np.float32)
    assert step(np.array([1, 2, 3]), logits) is logits


def test_a_row_without_ids():
    """As of an encoder-decoder that starts with nothing."""
    logits = np.zeros(VOCAB, np.float32)
    for step in (penalties.dry(1, 2, 1, (3,)), penalties.repetition_penalty(2.0), penalties.frequency_penalty(1, 0)):
        assert step(np.zeros(0, np.int64), logits) is logits


def test_an_end_is_raised_from_the_first_token_over_the_start():
    """By abs(logit) * (factor ** n - 1), n tokens after two generated ones."""
    step = penalties.exponential_decay_length_penalty(2, 1.5, [0, 1], 3)
    logits = np.array([2, -4, 7], np.float32)
    found = [step(np.zeros(length, np.int64), logits).tolist() for length in (4, 5, 6, 7)]
    assert found == [[2, -4, 7], [2, -4, 7], [3, -2, 7], [4.5, 1, 7]]


@pytest.mark.parametrize(
    ("ids", "biased"),
    [([1, 2], {3: 5}), ([2], {}), ([1], {}), ([2, 1], {}), ([9, 1, 2], {3: 5}), ([7], {8: -1}), ([1, 2, 3], {})],
)
def test_the_last_of_a_sequence_is_biased_behind_all_the_others(ids, biased):
    step = constraints.sequence_bias({(1, 2, 3): 5.0, (7, 8): -1.0})
    found = step(np.array(ids), np.zeros(VOCAB, np.float32))
    assert {index: found[index] for index in np.flatnonzero(found)} == biased


def test_an_end_alone_is_no_bad_word():
    """A longer word may begin with it."""
    step, logits = constraints.bad_words([[1], [1, 4], [5]], [1]), np.zeros(VOCAB, np.float32)
    assert np.flatnonzero(step(np.array([1]), logits) < 0).tolist() == [4, 5]
    assert np.flatnonzero(step(np.array([2]), logits) < 0).tolist() == [5]
