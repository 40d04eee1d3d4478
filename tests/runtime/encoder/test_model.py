"""What the methods of `Encoder` refuse; what they compute is tested task by task."""

from __future__ import annotations

import inspect
import math
import re
from pathlib import Path

import pytest

from triform.runtime.encoder import answering, classification, fill_mask, image_classification, reranking, tagging
from triform.runtime.encoder import zero_shot as own_labels
from triform.runtime.encoder.model import Encoder
from triform.runtime.encoder.vectors import embedding, image_embedding, search, token_vectors
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


@pytest.mark.parametrize("items", [None, 7, {"text": "a text", "text_pair": "another"}])
@pytest.mark.parametrize("method", ["embed", "classify", "tag", "fill_mask", "similarity", "answer", "token_vectors"])
def test_what_is_no_list_is_named(encoder, method, items):
    """Of a mapping the keys would be taken for texts."""
    with pytest.raises(InputError, match=rf"^a list is needed, not {re.escape(repr(items))}$"):
        getattr(encoder, method)(items)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": 0}, "`dimensions` must be between 1 and the model's 48, not 0"),
        ({"dimensions": 49}, "`dimensions` must be between 1 and the model's 48, not 49"),
        ({"dimensions": 1.5}, "`dimensions` must be a whole number, not 1.5"),
        ({"dimensions": True}, "`dimensions` must be a whole number, not True"),
        ({"prompt": 7}, "`prompt` must be a text, not 7"),
        ({"prompt_name": ["query"]}, r"`prompt_name` must be a text, not \['query'\]"),
    ],
)
def test_options_of_vectors(encoder, options, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        encoder.embed(["a text"], **options)


@pytest.mark.parametrize("top_k", [1.5, "3", None])
def test_whole_numbers_of_hits(encoder, top_k):
    with pytest.raises(InputError, match=rf"^`top_k` must be a whole number, not {top_k!r}$"):
        encoder.search(["a query"], ["a text"], top_k=top_k)


@pytest.mark.parametrize("item", [None, math.nan, b"a text", ["a text"], {"text": "a text"}])
def test_what_is_no_text_in_a_list_is_named_by_its_number(encoder, item):
    """As None and NaN are, where a column of a table has no value."""
    with pytest.raises(InputError, match=rf"^text 2 is {re.escape(repr(item))}, which is not a text$"):
        encoder.embed(["a text", item])
    with pytest.raises(InputError, match=r"^text 1 is .*, which is not a text$"):
        encoder.search(["a query"], [item])
    with pytest.raises(InputError, match=r"^text 1 is .*, which is neither a text nor a pair of texts$"):
        encoder.token_vectors([item])


@pytest.mark.parametrize("method", ["answer", "next_sentence"])
@pytest.mark.parametrize(
    "pairs", [("first", "second"), [("a", "b"), ("a", "b", "c")], [("a", "b"), "ab"], [("a", "b"), 7]]
)
def test_pairs_are_pairs(encoder, method, pairs):
    with pytest.raises(InputError, match=r"^item [12] is not a pair of texts: "):
        getattr(encoder, method)(pairs)


@pytest.mark.parametrize(
    ("method", "function"),
    [
        ("embed", embedding.embed),
        ("embed_images", image_embedding.embed_images),
        ("similarity", embedding.similarities),
        ("search", search.search),
        ("classify", classification.classify),
        ("zero_shot", own_labels.zero_shot),
        ("rerank", reranking.rerank),
        ("tag", tagging.tag),
        ("answer", answering.answer),
        ("fill_mask", fill_mask.fill_mask),
        ("token_vectors", token_vectors.token_vectors),
        ("classify_images", image_classification.classify_images),
        ("match_labels", image_classification.match_labels),
    ],
)
def test_a_method_has_the_defaults_of_what_it_calls(method, function):
    """Those that both name, or None for it; a limit of answers, for example, is the same whoever asks."""
    own, called = (inspect.signature(one).parameters for one in (getattr(Encoder, method), function))
    for name in own.keys() & called.keys():
        assert own[name].default in (None, called[name].default), name
