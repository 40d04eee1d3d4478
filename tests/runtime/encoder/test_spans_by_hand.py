"""How tokens become spans, and windows one text, on tokens that are written out: tagging and answering."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.encoder import answering, tagging
from triform.runtime.encoder.answering import Answer
from triform.runtime.text.rows import TokenRow

LABELS = ("O", "B-PER", "I-PER", "LOC", "ADJ-fem-x")


def piece(start, label, score=0.6, continues=False):
    scores = np.full(len(LABELS), (1 - score) / (len(LABELS) - 1))
    scores[LABELS.index(label)] = score
    return tagging._Piece(start, start + 2, scores, continues)


def grouped(pieces, aggregation="simple"):
    spans = tagging._grouped(pieces, LABELS, aggregation)
    return [(span.label, round(span.score, 3), span.start, span.end) for span in spans]


def test_neighbors_of_one_label_are_a_span():
    pieces = [piece(0, "B-PER", 0.8), piece(2, "I-PER", 0.6), piece(4, "B-PER"), piece(6, "O"), piece(8, "O"),
              piece(10, "LOC"), piece(12, "LOC", 0.8), piece(14, "I-PER"), piece(16, "ADJ-fem-x")]  # fmt: skip
    # transformers' pipeline takes what is behind the first hyphen.
    assert grouped(pieces) == [
        ("PER", 0.7, 0, 4), ("PER", 0.6, 4, 6), ("O", 0.6, 6, 10), ("LOC", 0.7, 10, 14), ("PER", 0.6, 14, 16),
        ("fem-x", 0.6, 16, 18),
    ]  # fmt: skip
    assert grouped([]) == []


@pytest.mark.parametrize(
    ("aggregation", "label", "score"), [("first", "LOC", 0.6), ("max", "I-PER", 0.9), ("average", "I-PER", None)]
)
def test_a_word_has_one_label(aggregation, label, score):
    """Of three tokens: the first one's, that of the highest probability, and that of the highest mean."""
    word = [piece(0, "LOC", 0.6), piece(2, "I-PER", 0.9, continues=True), piece(4, "O", 0.5, continues=True)]
    mean = np.mean([one.scores for one in word], axis=0)
    expected = round(float(mean.max()), 3) if aggregation == "average" else score
    assert grouped(word, aggregation) == [(label.split("-")[-1], expected, 0, 6)]
    # A token that begins a word is one of its own, also after a piece of another.
    assert [span[2:] for span in grouped([*word, piece(6, "O")], aggregation)] == [(0, 6), (6, 8)]
    assert [span[2:] for span in grouped(word[1:], aggregation)] == [(2, 6)]


def test_the_longer_of_overlapping_spans_is_kept():
    def span(start, end, score=0.5):
        return tagging._Span("PER", score, start, end)

    for spans, kept in (
        ([span(0, 4), span(3, 9)], [1]), ([span(0, 6), span(3, 8)], [0]), ([span(0, 4), span(4, 5)], [0, 1]),
        ([span(0, 4, 0.5), span(0, 4, 0.6)], [1]), ([span(0, 4, 0.7), span(2, 6, 0.6)], [0]),
        ([span(5, 9), span(0, 4)], [1, 0]), ([], []),
    ):  # fmt: skip
        assert tagging._without_overlaps(spans) == [spans[index] for index in kept]


@pytest.mark.parametrize("stride", [0, 1, 2, 5])
def test_each_token_of_windows_is_kept_once(stride):
    """From the window with more of its context; of an odd number of shared ones the first has one more."""
    size, tokens = 8, list(range(8 + 3 * (8 - stride)))
    starts = range(0, len(tokens) - size + 1, size - stride)
    windows = [tokens[start : start + size] for start in starts]
    kept = tagging._without_repeats(windows, stride)
    assert [token for window in kept for token in window] == tokens
    assert [len(window) for window in kept[1:-1]] == [size - stride] * (len(windows) - 2)
    assert len(kept[0]) == size - (stride - stride // 2)
    assert tagging._without_repeats([tokens], stride) == [tokens]


def row_of(words, sequences, offsets=None):
    count = len(words)
    offsets = offsets or [(2 * index, 2 * index + 2) for index in range(count)]
    return TokenRow(list(range(count)), [0] * count, offsets, list(sequences), list(words))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("longest", "top_k"), [(1, 1), (2, 3), (15, 1)])
def test_the_likeliest_answers_of_a_window(seed, longest, top_k):
    """All pairs of a beginning and an end of at most so many tokens; the first token stands for no answer."""
    random = np.random.default_rng(seed)
    sequences = [None, 0, 0, None, 1, 1, 1, 1, 1, None]
    row = row_of([None, 0, 1, None, 0, 1, 2, 3, 4, None], sequences)
    start, end = random.normal(size=(2, 10)).astype(np.float32)
    window = answering._Window(row, start, end, 0, 1)
    possible = [0, 4, 5, 6, 7, 8]
    begins, ends = (np.exp(logits[possible]) / np.exp(logits[possible]).sum() for logits in (start, end))
    assert window.no_answer() == pytest.approx(begins[0] * ends[0], rel=1e-5)
    pairs = [(begins[a] * ends[b], a + 3, b + 3) for a in range(1, 6) for b in range(a, min(6, a + longest))]
    expected = sorted(pairs, reverse=True)[: 2 * top_k + 10]
    found = window.best("ab" * 10, answering._Limits(top_k, longest))
    assert [(answer.start, answer.end) for answer in found] == [(2 * a, 2 * b + 2) for _, a, b in expected]
    assert [answer.score for answer in found] == pytest.approx([score for score, *_ in expected], rel=1e-5)


def test_equal_texts_are_one_answer():
    by_text = {}
    answering._collect(by_text, [Answer("Ada", 0.5, 0, 3), Answer("ada", 0.25, 9, 12), Answer("Bob", 0.1, 4, 7)])
    answering._collect(by_text, [Answer("ADA", 0.125, 20, 23)])
    assert by_text == {"ada": Answer("Ada", 0.875, 0, 3), "bob": Answer("Bob", 0.1, 4, 7)}


def test_a_window_without_a_possible_token():
    assert answering._probabilities(np.array([1.0, 2.0], np.float32), np.array([False, False])).tolist() == [0, 0]
