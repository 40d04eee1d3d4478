"""Pages: which are refused, and which box each token has, against transformers' tokenizers of documents."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.checkpoints.layouts import bert_tokenizer, byte_level_page_tokenizer, word_piece_page_tokenizer
from triform.export.tokenization.boxes import boxes_info
from triform.models.encoder.boxes import BoxForm
from triform.runtime.bundle.text_info import BoxesInfo
from triform.runtime.errors import InputError
from triform.runtime.text.pages import Page, laid_out, scaled
from triform.runtime.text.rows import RowReader

WHOLE, FRACTIONS = BoxForm(1000, True), BoxForm(1, False)
WORDS = ["Lighthouse", "keeper's", "", "naïve", "", "No:", "日本語の", "two words", "(12.50)", "a"]
BOXES = [[10 * index, 20 * index + 1, 10 * index + 7, 30 * index + 5] for index in range(len(WORDS))]
PAGE = Page(WORDS, BOXES)


def reader(tokenizer, form=WHOLE, max_length=96):
    copy = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    return RowReader(copy, max_length, 1000, boxes=boxes_info(tokenizer, form))


@pytest.mark.parametrize(
    ("words", "boxes", "size", "problem"),
    [
        (["a", "b"], [[1, 2, 3, 4]], None, "a page of 2 words needs as many boxes, not 1"),
        (["a"], [[3, 2, 1, 4]], None, "box 1 of the page, 3 2 1 4, is reversed"),
        (["a", "b"], [[1, 2, 3, 4], [1, 5, 3, 4]], None, "box 2 of the page, 1 5 3 4, is reversed"),
        (["a"], [[0, 0, 1001, 4]], None, "is not within a page of 1000 by 1000: give the page's size"),
        (["a"], [[-1, 0, 5, 4]], (9, 9), "is not within a page of 9 by 9"),
        (["a"], [[0, 0, 5, 10]], (10, 9), "is not within a page of 10 by 9"),
        (["a"], [[0.1, 0.2, 0.3, 0.4]], None, "is not in thousandths of the page"),
        (["a"], [[0, 1, 2]], None, "must be four numbers, left, top, right and bottom, not [0, 1, 2]"),
        (["a"], [[0, 1, 2, "3"]], None, "must be four numbers"),
        (["a"], [[0, 1, 2, True]], None, "must be four numbers"),
        (["a"], [[0, 1, 2, float("nan")]], (9, 9), "must be four numbers"),
        (["a"], [[0, 1, 2, 10**400]], (9, 9), "must be four numbers"),
        (["a"], [{"x": 1}], None, "must be four numbers"),
        (["a"], [[0, 0, 1, 1]], (0, 9), "the size of a page must be its width and height, above 0"),
        (["a"], [[0, 0, 1, 1]], "letter", "the size of a page must be its width and height, above 0"),
        ("a", [[0, 0, 1, 1]], None, "the words of a page must be a list of texts"),
        ([3], [[0, 0, 1, 1]], None, "the words of a page must be a list of texts"),
        (None, [[0, 0, 1, 1]], None, "the words of a page must be a list of texts"),
        ({"a": 1}, [[0, 0, 1, 1]], None, "the words of a page must be a list of texts"),
        (["a"], None, None, "the boxes of a page must be a list"),
        (["a"], np.array(5), None, "the boxes of a page must be a list"),
    ],
)
def test_pages_that_are_refused(words, boxes, size, problem):
    with pytest.raises(InputError) as error:
        Page(words, boxes, size)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


def test_coordinates_are_cut_to_thousandths_of_the_page_or_stay_fractions():
    """As LayoutLM's documentation computes them: int(1000 * (x / width))."""
    page = Page(["a", "b"], [[29, 7.5, 58, 101], [0, 0, 850, 1100]], (850, 1100))
    whole = scaled(page, BoxesInfo(1000, True))
    assert whole.dtype == np.int64
    assert whole.tolist() == [
        [int(1000 * (29 / 850)), int(1000 * (7.5 / 1100)), int(1000 * (58 / 850)), int(1000 * (101 / 1100))],
        [0, 0, 1000, 1000],
    ]
    fractions = scaled(page, BoxesInfo(1, False))
    assert fractions.dtype == np.float32
    np.testing.assert_allclose(fractions[0], [29 / 850, 7.5 / 1100, 58 / 850, 101 / 1100], rtol=1e-6)
    # Thousandths are taken as they are: 0.57 * 1000 would be 569.
    thousandths = Page(["a"], np.array([[290, 570, 580, 999]]))
    assert scaled(thousandths, BoxesInfo(1000, True)).tolist() == [[290, 570, 580, 999]]
    np.testing.assert_allclose(scaled(thousandths, BoxesInfo(1, False)), [[0.29, 0.57, 0.58, 0.999]], rtol=1e-6)


@pytest.mark.parametrize("make", [word_piece_page_tokenizer, byte_level_page_tokenizer])
def test_rows_are_those_of_transformers_tokenizers_of_documents(make):
    tokenizer = make()
    reads = reader(tokenizer)
    (alone,) = reads.read([PAGE])
    expected = tokenizer(WORDS, boxes=BOXES)
    assert (alone.ids, alone.boxes.tolist()) == (expected["input_ids"], expected["bbox"])
    assert len({tuple(box) for box in expected["bbox"]}) > 7
    # Of the words, those without characters have no tokens.
    assert {word for word in alone.words if word is not None} == {0, 1, 3, 5, 6, 7, 8, 9}
    (paired,) = reads.read([("Who keeps it?", PAGE)])
    expected = tokenizer("Who keeps it?", WORDS, boxes=BOXES)
    assert (paired.ids, paired.boxes.tolist()) == (expected["input_ids"], expected["bbox"])
    short = reader(tokenizer, max_length=19)
    (cut,) = short.read([PAGE])
    expected = tokenizer(WORDS, boxes=BOXES, truncation=True, max_length=19)
    assert (cut.ids, cut.boxes.tolist()) == (expected["input_ids"], expected["bbox"])
    assert cut.truncated
    windows = short.read_windows(("Who?", PAGE), stride=3)
    expected = tokenizer(
        "Who?", WORDS, boxes=BOXES, truncation="only_second", max_length=19, stride=3, return_overflowing_tokens=True
    )
    assert len(windows) == len(expected["input_ids"]) > 2
    for window, ids, boxes in zip(windows, expected["input_ids"], expected["bbox"], strict=True):
        assert (window.ids, window.boxes.tolist()) == (ids, boxes)


def test_boxes_of_a_tokenizer_that_gives_none_are_those_of_layoutlms_documentation():
    """The words' pieces one by one, [CLS] in one corner and [SEP] in the other; a question at zero."""
    tokenizer = bert_tokenizer()
    (row,) = reader(tokenizer).read([PAGE])
    pieces = [[box] * len(tokenizer.tokenize(word)) for word, box in zip(WORDS, BOXES, strict=True)]
    assert row.boxes.tolist() == [[0] * 4, *(box for each in pieces for box in each), [1000] * 4]
    assert row.ids == tokenizer(" ".join(WORDS))["input_ids"]
    (paired,) = reader(tokenizer).read([("What?", PAGE)])
    question = len(tokenizer.tokenize("What?"))
    assert paired.boxes.tolist() == [[0] * 4] * (1 + question) + [[1000] * 4, *row.boxes.tolist()[1:]]
    (fractions,) = reader(tokenizer, FRACTIONS).read([PAGE])
    np.testing.assert_allclose(fractions.boxes, row.boxes / 1000, rtol=1e-6)


def test_a_batch_holds_the_boxes_of_its_rows():
    reads = reader(bert_tokenizer())
    pages = [PAGE, laid_out("one two three")]
    batch, rows = reads.read_batch(pages), reads.read(pages)
    assert batch.boxes.tolist() == [box for row in rows for box in row.boxes.tolist()]
    padded = batch.padded(np.array([1, 0]), pad=0)["bbox"]
    short, long = rows[1].boxes, rows[0].boxes
    assert padded.shape == (2, len(long), 4)
    assert padded[1].tolist() == long.tolist()
    assert padded[0].tolist() == [*short.tolist(), *[[0] * 4] * (len(long) - len(short))]
    assert reads.read_batch([]).boxes.shape == (0, 4)


def test_texts_and_pages_are_not_taken_for_each_other():
    tokenizer = bert_tokenizer()
    with_boxes = reader(tokenizer)
    alone = RowReader(Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()), 96, 1000)
    for read in (with_boxes.read, with_boxes.read_batch):
        with pytest.raises(InputError, match=r'text 3 has no boxes: .*give a triform\.Page, or in a \.jsonl file \{"w'):
            read([PAGE, "a text"], first=2)
    with pytest.raises(InputError, match="text 1 has no boxes"):
        with_boxes.read_windows(("a", "b"), stride=1)
    with pytest.raises(InputError, match="text 1 is a page that comes first of a pair"):
        with_boxes.read([(PAGE, PAGE)])
    for read in (alone.read, alone.read_batch):
        with pytest.raises(InputError, match="text 1 has boxes, which this model does not read: give the text alone"):
            read([PAGE])
    with pytest.raises(InputError, match="text 1 has boxes"):
        alone.read_windows(("a", PAGE), stride=1)


def test_words_of_characters():
    page = Page(["", "ab", " c ", "def"], [[0, 0, 1, 1]] * 4)
    assert page.text == "ab c def"
    assert [page.word_at(start, end) for start, end in ((0, 1), (1, 2), (2, 4), (3, 4), (4, 4), (5, 8))] == [
        1,
        1,
        2,
        2,
        3,
        3,
    ]
    assert page.words_between(1, 6) == (1, 2, 3)
    assert page.words_between(0, 2) == (1,)


def test_a_page_stays_as_it_was_checked():
    words, boxes, size = ["a", "b"], [[0, 0, 1, 1], [1, 1, 2, 2]], [9, 9]
    page = Page(words, boxes, size)
    words.append("c")
    boxes[0][2] = 5000
    size[0] = 0
    assert (page.words, page.boxes, page.size) == (("a", "b"), ((0, 0, 1, 1), (1, 1, 2, 2)), (9, 9))


@pytest.mark.parametrize("box", [(7, 3, 7, 9), (3, 9, 7, 9), (0, 0, 0, 0), (1000, 1000, 1000, 1000)])
def test_boxes_without_an_area_and_at_the_edges_are_boxes(box):
    assert scaled(Page(["a"], [box]), BoxesInfo(1000, True)).tolist() == [list(box)]


@pytest.mark.parametrize("box", [(8, 3, 7, 9), (3, 10, 7, 9)])
def test_boxes_that_are_reversed_are_none(box):
    with pytest.raises(InputError, match="is reversed"):
        Page(["a"], [box])


def test_boxes_have_the_type_that_the_graph_takes():
    for form, kind in ((WHOLE, np.int64), (FRACTIONS, np.float32)):
        for pages in ([], [PAGE], [PAGE, laid_out("one two")]):
            assert reader(bert_tokenizer(), form).read_batch(pages).boxes.dtype == kind


def test_words_are_laid_out_in_lines_of_ten_and_pages_of_fifty_lines():
    """A line is 20 thousandths high, and a word 100 wide."""
    boxes = [tuple(box) for box in laid_out(" ".join(["word"] * 512)).boxes]
    assert boxes[0] == (0, 0, 90, 15) and boxes[9] == (900, 0, 990, 15)
    assert boxes[10] == (0, 20, 90, 35) and boxes[499] == (900, 980, 990, 995)
    # What is behind the last line is at the top again.
    assert boxes[500] == (0, 0, 90, 15) and boxes[511] == (100, 20, 190, 35)
