"""What the methods of `Encoder` refuse; what they compute is tested task by task."""

from __future__ import annotations

from pathlib import Path

import pytest

from triform.runtime.errors import InputError
from triform.runtime.opening import load_encoder


@pytest.fixture(scope="module")
def encoder(sentence_bundle):
    return load_encoder(sentence_bundle)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("embed", ["a text"]),
        ("embed_images", ["cat.jpg"]),
        ("embed_images", [Path("cat.jpg")]),
        ("embed_images", [b"content"]),
        ("similarity", [["a text"], "another"]),
        ("search", ["a query", ["a text"]]),
        ("search", [["a query"], "a text"]),
        ("build_search_index", ["folder", "a text"]),
        ("classify", ["a text"]),
        ("zero_shot", [["a text"], "label"]),
        ("rerank", ["a query", "a text"]),
        ("tag", ["a text"]),
        ("answer", ["a question"]),
        ("fill_mask", ["a [MASK]"]),
        ("find_targets", ["word"]),
        ("next_sentence", ["a text"]),
        ("token_vectors", ["a text"]),
        ("classify_images", ["cat.jpg"]),
        ("match_labels", [["cat.jpg"], "label"]),
    ],
)
def test_one_text_is_no_list(encoder, method, arguments):
    """Its letters would be taken for texts."""
    with pytest.raises(
        InputError, match=r"^a list is needed, not a single (str|bytes|PosixPath|WindowsPath): put .* in"
    ):
        getattr(encoder, method)(*arguments)


@pytest.mark.parametrize("method", ["answer", "next_sentence"])
@pytest.mark.parametrize("pairs", [("first", "second"), [("a", "b"), ("a", "b", "c")], [("a", "b"), "ab"]])
def test_pairs_are_pairs(encoder, method, pairs):
    with pytest.raises(InputError, match=r"^item [12] is not a pair of texts: "):
        getattr(encoder, method)(pairs)
