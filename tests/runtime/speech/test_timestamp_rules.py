"""The rules of times, against transformers' WhisperTimeStampLogitsProcessor."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

from triform.runtime.bundle.media_info import SpeechInfo
from triform.runtime.speech.timestamp_rules import TimestampRules

# A vocabulary of 20 words, an end, three special tokens, and times up to 0.20 s.
END, NO_TIMESTAMPS, FIRST_TIME, SIZE = 20, 23, 24, 35


@given(
    said=st.lists(st.one_of(st.integers(0, END - 1), st.integers(FIRST_TIME, SIZE - 1)), max_size=6),
    before=st.lists(st.integers(0, SIZE - 1), min_size=1, max_size=3),
    latest=st.sampled_from([None, 0, 3]),
    seed=st.integers(0, 2**32 - 1),
    favor=st.sampled_from([0.0, 2.0, -20.0]),
)
def test_as_transformers(said, before, latest, seed, favor):
    logits = np.random.default_rng(seed).normal(0, 3, SIZE).astype(np.float32)
    logits[FIRST_TIME:] += favor
    ids = np.array([*before, *said], np.int64)
    config = SimpleNamespace(
        no_timestamps_token_id=NO_TIMESTAMPS, eos_token_id=END, bos_token_id=END, max_initial_timestamp_index=latest
    )
    theirs = WhisperTimeStampLogitsProcessor(config, begin_index=len(before))
    expected = theirs(torch.from_numpy(ids)[None], torch.from_numpy(logits)[None])[0].numpy()
    info = SpeechInfo(FIRST_TIME, NO_TIMESTAMPS, max_initial_timestamp_index=latest)
    given_logits = logits.copy()
    found = TimestampRules(info, len(before), END)(ids, logits)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(logits, given_logits)


def test_times_together_are_likelier_than_a_word():
    """e^1 ten times over is more than e^3, e^2.9 twice is not."""
    info = SpeechInfo(FIRST_TIME, NO_TIMESTAMPS)
    ids = np.array([0, FIRST_TIME, 5], np.int64)
    logits = np.full(SIZE, -9, np.float32)
    logits[7] = 3
    logits[FIRST_TIME:] = 1
    assert TimestampRules(info, 1, END)(ids, logits)[7] == -np.inf
    logits[FIRST_TIME:] = -9
    logits[-2:] = np.log(np.exp(2.9) / 2)
    assert TimestampRules(info, 1, END)(ids, logits)[7] == pytest.approx(3)


def test_a_word_as_likely_as_all_times_may_be_said():
    """One time is left, as likely as a word: transformers asks for a time only where times are likelier."""
    logits = np.full(SIZE, -9, np.float32)
    logits[7], logits[-1] = 3, 3
    # The times before the last one are over.
    ids = np.array([0, SIZE - 2, 5], np.int64)
    config = SimpleNamespace(
        no_timestamps_token_id=NO_TIMESTAMPS, eos_token_id=END, bos_token_id=END, max_initial_timestamp_index=None
    )
    theirs = WhisperTimeStampLogitsProcessor(config, begin_index=1)
    expected = theirs(torch.from_numpy(ids)[None], torch.from_numpy(logits)[None])[0].numpy()
    assert expected[7] == 3 and np.isneginf(expected[FIRST_TIME:-1]).all()
    np.testing.assert_array_equal(TimestampRules(SpeechInfo(FIRST_TIME, NO_TIMESTAMPS), 1, END)(ids, logits), expected)
