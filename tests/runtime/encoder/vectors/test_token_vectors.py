"""Vectors of words and layers, on a stand-in for the model: which tokens a word has, and which layers there are."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.encoder.vectors import token_vectors as module
from triform.runtime.encoder.vectors.token_vectors import TokenVectors, token_vectors
from triform.runtime.errors import BundleError, InputError, UnsupportedError

TEXT = "The river, the River's bank C++ rivers"


def view(index, start, end):
    return SimpleNamespace(index=index, start=start, end=end)


# Of special tokens nothing is in the text.
TOKENS = [view(0, 0, 0), view(1, 0, 3), view(2, 4, 6), view(3, 6, 9), view(4, 9, 10), view(5, 27, 29), view(6, 29, 31)]
VECTORS = np.array([[2.0**index, -index] for index in range(7)], np.float32)


@pytest.mark.parametrize(
    ("word", "tokens"),
    [("river", [2, 3]), ("RIVER", [2, 3]), ("the", [1]), ("River,", [2, 3, 4]), ("C++", [6]), ("C+", [6])],
)
def test_the_mean_of_the_tokens_of_a_word(word, tokens):
    """Characters 28 to 30 are C++, of which the last token has two."""
    if word in ("C++", "C+"):
        tokens = [5, 6]
    found = TokenVectors(TEXT, TOKENS, VECTORS).of_word(word)
    np.testing.assert_array_equal(found, VECTORS[tokens].mean(0))


@pytest.mark.parametrize("word", ["riv", "iver", "sea", "", "The the"])
def test_what_is_no_word_of_the_text(word):
    with pytest.raises(InputError) as caught:
        TokenVectors(TEXT, TOKENS, VECTORS).of_word(word)
    assert str(caught.value) == f"the word {word!r} is not in {TEXT[:60]!r}"


@pytest.mark.parametrize("word", ["rivers", "bank"])
def test_words_that_were_cut(word):
    with pytest.raises(InputError, match=f"^the model does not read as far as the word '{word}' in "):
        TokenVectors(TEXT, TOKENS, VECTORS).of_word(word)


class Encoder:
    """Gives the number of an output as the vector of each token."""

    def __init__(self, outputs, hidden_states=0, ids=(5, 6)):
        self.info = SimpleNamespace(hidden_states=hidden_states)
        shapes = {"sentence_embedding": ["batch", 2], "hidden_states.1": ["batch", 2]}
        self.step = SimpleNamespace(
            outputs={name: SimpleNamespace(shape=shapes.get(name, ["batch", "sequence", 2])) for name in outputs},
            run=lambda rows, names: [[np.full((len(rows[0].ids), 2), outputs.index(names[0]), np.float32)]],
        )
        row = SimpleNamespace(ids=list(ids))
        self.reader = lambda: SimpleNamespace(read=lambda texts: [row], tokenizer=None)


@pytest.fixture(autouse=True)
def no_views(monkeypatch):
    monkeypatch.setattr(module, "view_row", lambda tokenizer, row, text: list(row.ids))


LAST = "last_hidden_state"
LAYERS = ["hidden_states.0", "hidden_states.1", "hidden_states.2", LAST]


@pytest.mark.parametrize(
    ("outputs", "layers", "layer", "expected"),
    [
        ([LAST], 0, None, LAST), (LAYERS, 3, None, LAST), (LAYERS[:3], 3, None, "hidden_states.2"),
        (LAYERS, 3, 0, "hidden_states.0"),
        (LAYERS, 3, 2, "hidden_states.2"),
    ],
)  # fmt: skip
def test_which_layer(outputs, layers, layer, expected):
    found = token_vectors(Encoder(outputs, layers), "ab", layer)
    assert (
        found.vectors.tolist() == [[outputs.index(expected)] * 2] * 2 and found.text == "ab" and found.tokens == [5, 6]
    )


@pytest.mark.parametrize("layer", [3, -1])
def test_layers_that_are_not_there(layer):
    with pytest.raises(InputError, match=rf"^`layer` must be from 0 to 2, not {layer}$"):
        token_vectors(Encoder(LAYERS, 3), "ab", layer)


@pytest.mark.parametrize(("layer", "what"), [(None, "the vectors of its tokens"), (0, "its layers")])
def test_a_bundle_without_layers(layer, what):
    with pytest.raises(UnsupportedError, match=f"^this bundle does not give {what}: export the model with"):
        token_vectors(Encoder(["sentence_embedding"]), "ab", layer)


def test_a_layer_without_a_vector_for_each_token():
    with pytest.raises(UnsupportedError, match=r"^layer 1 of this model has no vector for each token; choose another"):
        token_vectors(Encoder(LAYERS, 3), "ab", 1)


def test_a_text_without_tokens_and_vectors_that_are_no_numbers():
    with pytest.raises(InputError, match=r"^the text is empty: it has no tokens$"):
        token_vectors(Encoder([LAST], ids=()), "")
    encoder = Encoder([LAST])
    encoder.step.run = lambda rows, names: [[np.full((2, 2), np.nan, np.float32)]]
    with pytest.raises(BundleError):
        token_vectors(encoder, "ab")
