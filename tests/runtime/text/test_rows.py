"""Token ids of many texts in arrays: the same as row by row."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from tests.checkpoints.encoders import VOCAB, word_piece_tokenizer
from triform.runtime.errors import BundleError, InputError
from triform.runtime.text.rows import RowReader, TokenBatch

TEXTS = [
    "rain",
    "",
    "The ferry left the harbor before dawn, and nobody in the village had seen it go.",
    "snow and rain",
]


@pytest.fixture
def reader():
    return RowReader(word_piece_tokenizer(), 12, VOCAB)


def test_as_row_by_row(reader):
    rows, batch = reader.read(TEXTS), reader.read_batch(TEXTS)
    assert batch.lengths.tolist() == [len(row.ids) for row in rows]
    assert batch.ids.tolist() == [token for row in rows for token in row.ids]
    assert batch.type_ids.tolist() == [kind for row in rows for kind in row.type_ids]
    # The long text was cut twice.
    assert reader.truncated == 2
    assert reader.read_batch([]).lengths.tolist() == []


def test_errors_name_the_text():
    tokenizer = word_piece_tokenizer()
    with pytest.raises(InputError, match="text 13 is longer than the model's 12 tokens"):
        RowReader(tokenizer, 12, VOCAB, strict=True).read_batch(TEXTS, first=11)
    with pytest.raises(InputError, match="text 2 has only 2 tokens, but the model needs at least 3"):
        RowReader(tokenizer, 12, VOCAB, min_length=3).read_batch(TEXTS)
    with pytest.raises(InputError, match="text 6 is not valid Unicode"):
        RowReader(tokenizer, 12, VOCAB).read_batch(["a", "\ud800"], first=5)
    with pytest.raises(BundleError, match="but the model's vocabulary has 50 tokens"):
        RowReader(tokenizer, 12, 50).read_batch(TEXTS)


@pytest.mark.parametrize(
    "item", [None, 7, b"ab", [], ["a"], ("a", "b", "c"), ("a", None), {"text": "a", "text_pair": "b"}, iter("abc")]
)
def test_what_is_neither_a_text_nor_a_pair_is_named_by_its_number(reader, item):
    for read in (reader.read, lambda texts: list(reader.stream(texts)), reader.read_batch):
        with pytest.raises(InputError, match=r"^text 2 is .*, which is neither a text nor a pair of texts$"):
            read(["a", item])
    with pytest.raises(InputError, match=r"^text 3 is "):
        reader.read_windows(item, stride=1, number=3)


def test_pairs_may_be_lists_and_arrays(reader):
    (expected,) = reader.read([("rain", "snow")])
    for pair in (["rain", "snow"], np.array(["rain", "snow"])):
        assert reader.read([pair])[0].ids == expected.ids


def test_some_of_the_texts_as_arrays():
    batch = TokenBatch(np.array([1, 2, 3, 4, 5, 6]), np.array([0, 0, 1, 0, 0, 1]), np.array([3, 0, 1, 2]))
    arrays = {name: array.tolist() for name, array in batch.padded(np.array([0, 3]), 9).items()}
    assert arrays == {
        "input_ids": [[1, 2, 3], [5, 6, 9]],
        "attention_mask": [[1, 1, 1], [1, 1, 0]],
        "token_type_ids": [[0, 0, 1], [0, 1, 0]],
    }


@pytest.mark.parametrize("length", [2, 4])
def test_padding_that_is_part_of_a_text(length):
    batch = TokenBatch(np.array([1, 2, 3, 4]), np.array([0, 1, 1, 0]), np.array([3, 0, 1])).at_least(length, 9)
    ids = {2: [1, 2, 3, 9, 9, 4, 9], 4: [1, 2, 3, 9, 9, 9, 9, 9, 4, 9, 9, 9]}[length]
    assert batch.ids.tolist() == ids
    assert batch.lengths.tolist() == {2: [3, 2, 2], 4: [4, 4, 4]}[length]
    assert batch.type_ids.tolist() == {2: [0, 1, 1, 0, 0, 0, 0], 4: [0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]}[length]


def test_nothing_is_padded_that_is_long_enough():
    batch = TokenBatch(np.array([1, 2, 3, 4]), np.array([0, 1, 1, 0]), np.array([3, 1]))
    for length in (0, 1):
        assert batch.at_least(length, 9) is batch
    assert batch.at_least(2, 9).lengths.tolist() == [3, 2]
    # Without a least length texts of no tokens stay so, and where there are no texts there is nothing to pad.
    empty = TokenBatch(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.int64))
    assert empty.at_least(0, 9) is empty
    assert empty.at_least(2, 9).ids.tolist() == [9, 9]
    none = TokenBatch(*[np.zeros(0, np.int64)] * 3)
    assert none.at_least(4, 9) is none


def test_a_text_that_is_just_long_enough_and_one_that_is_just_too_long():
    words = Tokenizer(models.WordLevel({"a": 0}))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    reader = RowReader(words, 4, 1, min_length=2)
    assert reader.read_batch(["a a", "a a a a"]).lengths.tolist() == [2, 4]
    assert reader.truncated == 0
    assert reader.read_batch(["a a a a a"]).lengths.tolist() == [4]
    assert reader.truncated == 1
    # A row of one token is enough unless the reader says otherwise.
    assert RowReader(words, 4, 1).read_batch(["a", ""]).lengths.tolist() == [1, 0]


@pytest.mark.parametrize("text", ["a", "a b"])
def test_texts_that_are_shorter_than_the_model_needs(text):
    """Without special tokens: one token is too few, and a text of none is not read."""
    words = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    reader = RowReader(words, 12, 3, min_length=3)
    assert reader.read_batch(["", "a b c"]).lengths.tolist() == [0, 3]
    message = f"^text 7 has only {len(text.split())} tokens, but the model needs at least 3"
    with pytest.raises(InputError, match=message):
        reader.read_batch(["", text], first=6)
    with pytest.raises(InputError, match=message):
        reader.read(["", text], first=6)
