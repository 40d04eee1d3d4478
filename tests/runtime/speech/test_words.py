"""Where tokens were heard, against transformers' own functions on random attention; and words, by hand."""

from __future__ import annotations

import types

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter
from transformers.utils import ModelOutput

from triform.runtime.speech.transcript import Segment
from triform.runtime.speech.words.alignment import alignment_matrix, dynamic_time_warping, median_filter, token_frames
from triform.runtime.speech.words.grouping import (
    TimedWord,
    merge_punctuation,
    shorten,
    shorten_first,
    split_words,
    usual_length,
)
from triform.runtime.speech.words.timestamps import WordFinder, _fitted, _parts


def attention(*shape, seed=0):
    """What a softmax gives."""
    weights = np.exp(np.random.default_rng(seed).normal(0, 2, shape))
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("frames", [1, 3, 4, 9, 100])
@pytest.mark.parametrize("width", [3, 7])
def test_median_filter(frames, width):
    values = attention(2, 5, frames, seed=frames)
    expected = _median_filter(torch.from_numpy(values)[None], width)[0].numpy()
    np.testing.assert_array_equal(median_filter(values, width), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (7, 7), (5, 40), (40, 5), (30, 90)])
@pytest.mark.parametrize("kind", ["random", "equal", "few values"])
def test_dynamic_time_warping(shape, kind):
    costs = np.random.default_rng(sum(shape)).normal(size=shape)
    costs = {"random": costs, "equal": np.ones(shape), "few values": np.round(costs)}[kind]
    for found, expected in zip(dynamic_time_warping(costs), _dynamic_time_warping(costs), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("prompt", [1, 4])
def test_token_times(prompt):
    """One layer of three heads, a prompt in one run and then 20 tokens, each in a run of its own; 60 frames of 80."""
    weights = attention(1, 3, prompt + 20, 80, seed=prompt)
    runs = [weights[:, :, :prompt], *(weights[:, :, [i]] for i in range(prompt, prompt + 20))]
    outputs = ModelOutput(
        sequences=torch.zeros(1, prompt + 21), cross_attentions=tuple((torch.from_numpy(run),) for run in runs)
    )
    model = types.SimpleNamespace(config=types.SimpleNamespace(decoder_layers=1, median_filter_width=7))
    expected = WhisperForConditionalGeneration._extract_token_timestamps(
        model, outputs, [(0, 0), (0, 1), (0, 2)], num_frames=120, num_input_ids=prompt
    )[0]
    found = token_frames(alignment_matrix(weights[0, :, prompt:, :60], 7))
    np.testing.assert_allclose(found * 0.02, expected[prompt:-1], atol=1e-6)


def test_the_longest_window():
    frames = token_frames(alignment_matrix(attention(2, 448, 1500)))
    assert frames.shape == (448,)
    assert (np.diff(frames) >= 0).all()


def test_frames_that_say_nothing():
    assert np.isfinite(alignment_matrix(np.full((2, 5, 30), 1 / 30, np.float32))).all()


TEXT = {1: " Wait", 2: "!", 3: ' "', 4: "No", 5: "-", 6: "one", 7: '"', 8: " ca", 9: "me", 10: ".", 11: " ("}
BYTES = {1: b" na", 2: b"\xc3", 3: b"\xaf", 4: b"ve", 5: b" \xe6", 6: b"\x97\xa5", 7: "\ufffd".encode()}


def decode(tokens):
    return "".join(TEXT[token] for token in tokens)


def decode_bytes(tokens):
    return b"".join(BYTES[token] for token in tokens).decode(errors="replace")


def test_words_begin_at_spaces_and_punctuation():
    found = split_words([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], decode, "en")
    assert [text for text, _ in found] == [" Wait", "!", ' "No', "-one", '"', " came", "."]
    assert [token for _, ids in found for token in ids] == list(range(1, 11))


def test_characters_of_several_tokens():
    assert split_words([1, 2, 3, 4, 5, 6], decode_bytes, None) == [(" naïve", [1, 2, 3, 4]), (" 日", [5, 6])]
    # Where words are not separated every character is one; one that is not whole is kept as it is.
    assert split_words([1, 2, 3, 5], decode_bytes, "ja") == [(" na", [1]), ("ï", [2, 3]), (" \ufffd", [5])]


def test_a_text_that_begins_without_a_space():
    assert split_words([4, 5, 6], decode, "en") == [("No", [4]), ("-one", [5, 6])]
    assert split_words([], decode, "en") == []


def test_a_text_with_the_sign_for_broken_characters():
    """It is no broken character itself."""
    assert split_words([7, 4, 7], decode_bytes, "ja") == [("\ufffd", [7]), ("ve", [4]), ("\ufffd", [7])]


def word(text, start, end):
    return TimedWord(text, [len(text)], start, end, [1.0])


def test_punctuation_joins_words():
    words = [
        word(" Wait", 0, 1),
        word("!", 1, 2),
        word(' "', 2, 3),
        word("No", 3, 4),
        word('"', 4, 5),
        word(" (", 5, 6),
    ]
    found = merge_punctuation(words)
    assert [(one.text, one.start, one.end) for one in found] == [(" Wait!", 0, 1), (' "No"', 3, 4), (" (", 5, 6)]
    assert [one.tokens for one in found] == [[5, 1], [2, 2, 1], [2]]


def test_punctuation_without_a_word_stays_by_itself():
    words = [word(".", 0, 1), word(" a", 1, 2), word("!", 2, 3)]
    assert [one.text for one in merge_punctuation(words)] == [".", " a!"]
    assert [one.text for one in merge_punctuation([word(" a ", 0, 1), word(".", 1, 2)])] == [" a ", "."]
    assert merge_punctuation([]) == []


def test_words_at_the_end_of_a_sentence_are_not_long():
    """Words of 0.2 s: at most 0.4 s beside a full stop."""
    words = [word(" a", 0, 0.2), word(" b", 0.2, 0.4), word(".", 0.4, 3), word(" c", 3, 6), word(" d", 6, 6.2)]
    assert usual_length(words) == pytest.approx(0.2)
    times = [(one.start, one.end) for one in shorten(words)]
    np.testing.assert_allclose(times, [(0, 0.2), (0.2, 0.4), (0.4, 0.8), (5.6, 6), (6, 6.2)])
    assert usual_length([word(" a", 1, 1)]) == 0
    assert usual_length([word(" a", 0, 5)]) == 0.7


def test_the_usual_length_is_a_median():
    for lengths, expected in (([0.1, 0.6, 0.2], 0.2), ([0.1, 0.4, 0.2, 0.3], 0.25), ([0.5, 0.3], 0.4), ([0.3], 0.3)):
        words = [word(" a", 1, 1 + length) for length in lengths]
        assert usual_length(words) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        # Neither the first nor both together are long: at most 0.5 and 1 s.
        ([(2, 2.5), (2.5, 3)], [(2, 2.5), (2.5, 3)]),
        # The first is, which has no more than its end.
        ([(2, 2.75), (2.75, 3)], [(2.25, 2.75), (2.75, 3)]),
        # Both together are, because of the second.
        ([(2, 2.25), (2.25, 3.25)], [(2.25, 2.75), (2.75, 3.25)]),
        ([(2, 2.25)], [(2, 2.25)]),
        ([(2, 3)], [(2.5, 3)]),
        # At most half of the time before the second's end.
        ([(0.0, 1.25), (1.25, 8)], [(7, 7.5), (7.5, 8)]),
    ],
)
def test_what_is_long_after_a_pause(words, expected):
    """As openai/whisper's `add_word_timestamps`, of words that are 0.25 s long usually."""
    found = shorten_first([word(" a", *times) for times in words], 0.25, 0.0)
    assert [(one.start, one.end) for one in found] == expected


def test_the_first_words_after_a_pause_are_not_long():
    """Words of 0.2 s usually, so at most 0.4 s; 0.8 s without a word is a pause."""
    words = [word(" a", 0, 3), word(" b", 3, 3.2)]
    assert [one.start for one in shorten_first(words, 0.2, 0.0)] == pytest.approx([2.6, 3])
    # Something was said until just before.
    assert shorten_first(words, 0.2, 2.5) == words
    both = [word(" a", 0, 1), word(" b", 1, 3)]
    times = [(one.start, one.end) for one in shorten_first(both, 0.2, 0.0)]
    np.testing.assert_allclose(times, [(2.2, 2.6), (2.6, 3)])
    assert shorten_first([], 0.2, 0.0) == []


@pytest.mark.parametrize(
    ("seconds", "frames"), [(0.001, 1), (0.02, 1), (0.039, 1), (0.04, 2), (0.061, 3), (30, 1500), (31, 1500)]
)
def test_how_many_frames_are_audio(seconds, frames):
    """Of 1500 in 30 s, 0.02 s each; a window has one at least."""
    audio = types.SimpleNamespace(chunk_length=30)
    model = types.SimpleNamespace(
        reader=types.SimpleNamespace(attends=True), info=types.SimpleNamespace(speech=object(), audio=audio)
    )
    assert WordFinder(model)._frames(1500, seconds) == frames


@pytest.mark.parametrize(
    ("sizes", "lengths", "expected"),
    [
        ([1, 2, 1], [1, 2, 1], [[0], [1], [2]]),
        ([1, 2, 1], [3, 1], [[0, 1], [2]]),
        # The second word begins in the first segment, so the second segment is one token shorter.
        ([1, 2, 1], [2, 2], [[0, 1], [2]]),
        ([1, 2, 1], [2, 1, 1], [[0, 1], [], [2]]),
        ([3, 1], [1, 1, 2], [[0], [], [1]]),
        ([2], [0, 2, 0], [[], [0], []]),
    ],
)
def test_words_of_segments(sizes, lengths, expected):
    words = [TimedWord(str(index), [7] * size, 0.0, 0.0, [1.0] * size) for index, size in enumerate(sizes)]
    assert [[int(word.text) for word in part] for part in _parts(words, lengths)] == expected


@pytest.mark.parametrize(
    ("segment", "usual", "expected"),
    [
        # Words are heard from 10.0 to 11.0 and from 11.0 to 12.0. Up to half a second they are right.
        ((10.4, 11.6), 0.3, (10.0, 12.0)), ((10.5, 11.5), 0.3, (10.0, 12.0)),
        # Further than that the segment is right, but a word has its usual length.
        ((10.6, 11.4), 0.3, (10.6, 11.4)), ((10.8, 11.2), 0.3, (10.7, 11.3)), ((10.8, 11.2), 0.1, (10.8, 11.2)),
        # A segment that does not touch the word says nothing about it.
        ((11.0, 12.0), 0.3, (10.0, 12.0)), ((10.0, 11.0), 0.3, (10.0, 12.0)),
        ((9.0, 13.0), 0.3, (10.0, 12.0)),
    ],
)  # fmt: skip
def test_segments_and_their_words_end_together(segment, usual, expected):
    words = [TimedWord(" a", [1], 0.0, 1.0, [0.5, 1.0]), TimedWord(" b", [2], 1.0, 2.0, [0.25])]
    found = _fitted(Segment(*segment, " a b", [1, 2], -0.1, None, 1.0, 0.0), words, 10.0, usual)
    assert (found.start, found.end) == expected
    first, last = found.words
    assert (first.start, first.end, last.start, last.end) == (expected[0], 11.0, 11.0, expected[1])
    assert (first.probability, last.probability) == (0.75, 0.25)


def test_a_segment_without_words_stays_as_it_is():
    segment = Segment(1.0, 2.0, "", [], -0.1, None, 1.0, 0.0)
    assert _fitted(segment, [], 10.0, 0.3) is segment
