"""Words by Moses' rules, which are written out by hand here, on a stand-in for the tokenizer of words."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from triform.runtime.text.moses import MosesTokenizer


class Backend:
    """Keeps what it is asked for; its ids are the words themselves."""

    vocabulary = 7

    def __init__(self, *special):
        self.special, self.asked = special, []

    def get_added_tokens_decoder(self):
        return {index: SimpleNamespace(content=content) for index, content in enumerate(self.special)}

    def encode(self, words, **options):
        self.asked.append((words, options))
        return "encoded"

    def encode_batch(self, rows, **options):
        self.asked.append((rows, options))
        return ["encoded"] * len(rows)

    def decode(self, ids, skip_special_tokens):
        return " ".join(token for token in ids if not (skip_special_tokens and token in self.special)) + " "


def test_case_is_kept_unless_it_is_not_asked_for():
    assert MosesTokenizer(Backend(), "en").words("The SEA, so") == ["The", "SEA", ",", "so"]
    assert MosesTokenizer(Backend(), "en", lowercase=True).words("The SEA, so") == ["the", "sea", ",", "so"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", []),
        ("a", ["a"]),
        ("well-known", ["well", "@-@", "known"]),
        ("(x)", ["(", "x", ")"]),
        ('"a" & b', ["&quot;", "a", "&quot;", "&amp;", "b"]),
        ("don't", ["don", "&apos;t"]),
        ("Mr. Smith left.", ["Mr.", "Smith", "left", "."]),
        # Full-width marks and digits become those of ASCII.
        ("a\uff0cb\u3002", ["a", ",", "b", "."]),
        ("\uff11\uff05", ["1", "%"]),
    ],
)
def test_words_and_marks(text, words):
    assert MosesTokenizer(Backend(), "en").words(text) == words


def test_special_tokens_stand_alone_and_the_longest_counts():
    words = MosesTokenizer(Backend("<a>", "<a><a>", "a,b"), "en").words("x<a><a>y <a>a,b")
    assert words == ["x", "<a><a>", "y", "<a>", "a,b"]


def test_words_are_given_to_the_backend_as_they_are():
    backend = Backend()
    tokenizer = MosesTokenizer(backend, "en")
    assert tokenizer.encode("a, b") == "encoded"
    assert tokenizer.encode_batch(["a,", ""], add_special_tokens=False) == ["encoded"] * 2
    assert backend.asked == [
        (["a", ",", "b"], {"is_pretokenized": True, "add_special_tokens": True}),
        ([["a", ","], []], {"is_pretokenized": True, "add_special_tokens": False}),
    ]
    assert tokenizer.encode_batch([]) == [] and backend.asked[-1][1]["add_special_tokens"]
    assert tokenizer.encode("a", add_special_tokens=False) and not backend.asked[-1][1]["add_special_tokens"]
    assert tokenizer.vocabulary == 7 and tokenizer.holds_back


def test_words_are_joined_and_replaced_in_order():
    ids = ["He", "said", ":", "it", "&apos;s", "well", "@-@", "known", "</s>", "."]
    plain = MosesTokenizer(Backend("</s>"), "en")
    assert plain.decode(ids) == "He said: it's well-known."
    assert plain.decode(["a", "</s>"], skip_special_tokens=False) == "a </s>"
    replaced = MosesTokenizer(Backend("</s>"), "en", replaced={"it's": "that", "that well": "so"})
    assert replaced.decode(ids) == "He said: so-known."
