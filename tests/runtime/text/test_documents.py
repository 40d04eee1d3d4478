"""Cutting texts into pieces, with words for tokens: what a reader can count."""

from __future__ import annotations

import itertools
import sys
from re import escape

import pytest

from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.extras import install_command
from triform.runtime.text.documents import Splitter, in_pieces, join, put_together, sentences, summaries

TEXT = "One two three. Four five? Six seven eight nine! Ten eleven. Twelve."


def splitter(limit, **more):
    """One token a word, and one around each text."""
    return Splitter(lambda text: len(text.split()) + 1, limit, **more)


def pieces(limit, text=TEXT, **more):
    return [line.pieces for line in splitter(limit, **more).lines(text)]


def test_a_text_that_fits_stays_whole():
    assert pieces(13) == [[TEXT]]


def test_as_many_whole_sentences_as_fit():
    assert pieces(12) == [["One two three. Four five? Six seven eight nine! Ten eleven.", "Twelve."]]
    assert pieces(8) == [["One two three. Four five?", "Six seven eight nine! Ten eleven. Twelve."]]
    assert pieces(5) == [["One two three.", "Four five?", "Six seven eight nine!", "Ten eleven. Twelve."]]


def test_a_sentence_that_does_not_fit_is_cut_between_words():
    made = splitter(4)
    assert [line.pieces for line in made.lines(TEXT)] == [
        ["One two three.", "Four five?", "Six seven", "eight nine!", "Ten eleven. Twelve."]
    ]
    assert made.cut == 1
    with pytest.raises(InputError, match=r"^text 7 has a sentence longer than the model's 4 tokens: 'Six seven eight"):
        splitter(4, strict=True).lines(TEXT, 7)


def test_a_word_that_does_not_fit_is_cut():
    by_letters = Splitter(len, 4)
    assert [line.pieces for line in by_letters.lines("abcdefgh")] == [["abcd", "efgh"]]
    with pytest.raises(InputError, match=r"leave no room for a text in the model's 4 tokens$"):
        Splitter(lambda text: len(text) + 4, 4).lines("abc")


def test_lines_blank_ones_and_white_space_stay():
    text = "  One two.\n\n\t\nThree four five. Six seven.  \r\nEight"
    lines = splitter(4).lines(text)
    assert [line.pieces for line in lines] == [["One two."], [], [], ["Three four five.", "Six seven."], ["Eight"]]
    flat = [piece for line in lines for piece in line.pieces]
    assert put_together(lines, flat) == text
    assert put_together(lines, ["a", "b", "c", "d"]) == "  a\n\n\t\nb c  \r\nd"


def test_nothing_between_sentences_of_a_script_without_spaces():
    assert join(["今天很好。", "我们去吧！", "Yes.", "No."]) == "今天很好。我们去吧！Yes. No."
    assert sentences("今天很好。我们去吧！好吗？", "zh") == ["今天很好。", "我们去吧！", "好吗？"]


def test_abbreviations_of_a_language():
    text = "Dr. Smith paid $3.50 in Washington, D.C. on Monday. He left."
    assert sentences(text, "en") == ["Dr. Smith paid $3.50 in Washington, D.C. on Monday. ", "He left."]
    assert sentences("Am 3. Mai kam z.B. Hr. Meier. Er ging.", "de") == ["Am 3. Mai kam z.B. Hr. Meier. ", "Er ging."]
    assert "".join(sentences("A.\n\n\nB. \t C", "xx")) == "A.\n\n\nB. \t C"


def test_the_language_of_a_splitter_decides_where_sentences_end():
    text = "Am 3. Mai kam z.B. Hr. Meier. Er ging heim."
    assert pieces(8, text, language="de") == [["Am 3. Mai kam z.B. Hr. Meier.", "Er ging heim."]]
    english = sentences(text, "en")
    assert english != sentences(text, "de")
    assert pieces(5, text) == pieces(5, text, language="en") != pieces(5, text, language="de")


def test_the_text_that_has_too_long_a_sentence_is_the_first_unless_it_has_a_number():
    for find in (splitter(4, strict=True).lines, splitter(4, strict=True).windows):
        with pytest.raises(InputError, match=r"^text 1 has a sentence longer"):
            find(TEXT)
        with pytest.raises(InputError, match=r"^text 3 has a sentence longer"):
            find(TEXT, 3)


def test_windows_begin_with_the_last_sentences_of_the_one_before():
    text = " ".join(f"Word{index} word." for index in range(10))
    # Sentences of two words; 12 tokens leave 11 words, of which 12 // 6 = 2 are shared.
    found = splitter(12).windows(text)
    assert found == [
        " ".join(f"Word{index} word." for index in range(start, min(start + 5, 10))) for start in (0, 4, 8)
    ]
    # A window of one sentence shares nothing.
    assert splitter(3).windows(text) == [f"Word{index} word." for index in range(10)]
    assert splitter(100).windows(text) == [text]


def test_windows_go_on_where_sentences_are_longer_together_than_apart():
    """Three sentences do not fit, though their lengths add up to six of 24 tokens; and four tokens may be shared."""
    words = [f"Word{index} word." for index in range(5)]
    uneven = Splitter(lambda text: len(text.split()) + 1 + 100 * (text.count(".") > 2), 24)
    assert uneven.windows(" ".join(words)) == [" ".join(words[start : start + 2]) for start in range(4)]


def test_what_finds_sentences_may_be_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencex", None)
    monkeypatch.setattr("triform.runtime.text.documents.find_spec", lambda name: None)
    assert pieces(13) == [[TEXT]]
    with pytest.raises(UnsupportedError, match=f"needs sentencex: {escape(install_command('documents'))}$"):
        pieces(12)


def test_pieces_of_many_texts_in_order_and_in_bounded_memory():
    read = []

    def texts():
        for index in range(1000):
            read.append(index)
            yield "" if index % 7 == 0 else f"A{index} b.\nC d. E f."

    made = splitter(3)
    ahead = []

    def work(parts):
        for part in parts:
            yield part.upper()

    for index, (lines, answers) in enumerate(in_pieces(texts(), made.lines, work)):
        ahead.append(read[-1] - index)
        assert put_together(lines, answers) == ("" if index % 7 == 0 else f"A{index} B.\nC D. E F.")
    assert index == 999
    assert max(ahead) <= 2


def first_words(count):
    """A summary of a window: its first words."""
    return lambda parts: (" ".join(part.split()[:count]) for part in parts)


def test_summaries_of_summaries():
    text = " ".join(f"Word{index} word." for index in range(10))
    shared = {"text_of": str}
    # Three windows give three summaries of two words each: six are more than four, and are summed up again, at once.
    assert summaries([text], splitter(12), 4, first_words(2), **shared) == [["Word0 word."]]
    # So are two windows', and four words are not more than four.
    two = " ".join(f"Word{index} word." for index in range(6))
    assert len(splitter(12).windows(two)) == 2
    assert summaries([two], splitter(12), 3, first_words(2), **shared) == [["Word0 word."]]
    assert len(summaries([two], splitter(12), 4, first_words(2), **shared)[0]) == 2
    # Six words are not more than six.
    assert summaries([text, "a b c"], splitter(12), 6, first_words(2), **shared) == [
        ["Word0 word.", "Word4 word.", "Word8 word."],
        ["a b"],
    ]
    # Summaries that are no shorter than what they sum up are not summed up for ever.
    assert len(summaries([text], splitter(12), 1, first_words(100), **shared)[0]) > 1


@pytest.mark.parametrize("last", [8, 9, 10, 11])
def test_a_long_sentence_behind_short_ones_is_in_one_window(last):
    """What a window shares leaves room for the next sentence: no window only repeats."""
    text = " ".join([*(f"Word{index} word." for index in range(5)), " ".join(["Long", *["words"] * (last - 1)]) + "."])
    windows = splitter(12).windows(text)
    assert sum("Long" in window for window in windows) == 1
    for before, after in itertools.pairwise(windows):
        assert not before.endswith(after)
