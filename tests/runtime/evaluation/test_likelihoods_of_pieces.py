"""How texts are cut for their likelihoods, with a model that only says what it is asked: letters are tokens."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.errors import BundleError
from triform.runtime.evaluation import likelihoods as module
from triform.runtime.evaluation.likelihoods import Likelihoods

BOS, EOS = ord("<"), ord(">")


class Letters:
    """Puts a letter before texts, or none."""

    def __init__(self, before):
        self.before = before

    def encode(self, text, *, add_special_tokens=True):
        return SimpleNamespace(ids=[*map(ord, self.before * add_special_tokens), *map(ord, text)])


class Asked:
    """A model that reads eight tokens, and costs half a nat for each."""

    def __init__(self):
        self.manifest, self.calls = SimpleNamespace(max_length=8), []

    def continuation_losses(self, before, after):
        self.calls.append(("".join(map(chr, before)), "".join(map(chr, after))))
        return np.full(len(after), 0.5), len(after) == 3


@pytest.fixture
def made(monkeypatch):
    def make(before="", bos=BOS, eos=(EOS,)):
        tokens = SimpleNamespace(bos=bos, eos=eos)
        monkeypatch.setattr(
            module, "open_bundle", lambda path: SimpleNamespace(manifest=SimpleNamespace(tokens=tokens))
        )
        monkeypatch.setattr(module, "Decoder", lambda bundle, **options: Asked())
        monkeypatch.setattr(module, "bundle_tokenizer", lambda bundle: Letters(before))
        return Likelihoods("bundle")

    return make


@pytest.mark.parametrize(("bos", "eos", "start"), [(BOS, (EOS,), "<"), (None, (EOS, 5), ">"), (0, (EOS,), "\0")])
def test_what_takes_the_place_of_no_context(made, bos, eos, start):
    found = made(bos=bos, eos=eos)
    found.of_continuation("", "ab")
    found.of_text("ab")
    assert found.model.calls == [(start, "ab"), (start, "ab")]


def test_a_bundle_needs_a_token_to_begin_with(made):
    with pytest.raises(BundleError, match="bundle names neither a beginning nor an end of texts"):
        made(bos=None, eos=())


@pytest.mark.parametrize(
    ("before", "context", "continuation", "call"),
    [
        ("", "ab", " c", ("ab", " c")),
        # Spaces go with the continuation.
        ("", "ab ", "c", ("ab", " c")), ("", "ab  ", " c", ("ab", "   c")), ("", "  ", "c", ("<", "  c")),
        # What the tokenizer puts before texts stands before a context, once.
        ("^", "ab", " c", ("^ab", " c")), ("^", "^ab", " c", ("^ab", " c")), ("^^", "^ab", " c", ("^^^ab", " c")),
        ("^", "", "ab", ("<", "ab")), ("^", " ", "ab", ("<", " ab")),
    ],
)  # fmt: skip
def test_a_context_and_what_follows_it(made, before, context, continuation, call):
    found = made(before)
    assert found.of_continuation(context, continuation) == (-0.5 * len(call[1]), len(call[1]) == 3)
    assert found.model.calls == [call]


def test_nothing_that_follows_is_certain(made):
    found = made()
    assert found.of_continuation("ab", "") == (0.0, True)
    assert found.model.calls == []


@pytest.mark.parametrize(
    ("context", "continuation", "call"),
    [
        # The last token is predicted, not read, so that nine fit.
        ("abcdef", "ghi", ("abcdef", "ghi")), ("Xabcdef", "ghi", ("abcdef", "ghi")),
        ("Xab", "cdefghi", ("ab", "cdefghi")), ("a", "bcdefghi", ("a", "bcdefghi")),
        # A continuation that is too long begins with the first token that is read.
        ("a", "bcdefghij", ("b", "cdefghij")), ("a", "bcdefghijk", ("c", "defghijk")),
    ],
)  # fmt: skip
def test_of_what_is_too_long_the_first_tokens_are_left_out(made, context, continuation, call):
    found = made()
    found.of_continuation(context, continuation)
    assert found.model.calls == [call]


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("", []),
        ("a", [("<", "a")]),
        ("abcdefgh", [("<", "abcdefgh")]),
        # The last window is whole, too, and each token counts once.
        ("abcdefghi", [("<", "abcdefgh"), ("abcdefgh", "i")]),
        ("abcdefghijkl", [("<", "abcdefgh"), ("defgh", "ijkl")]),
        ("abcdefghijklmnopq", [("<", "abcdefgh"), ("h", "ijklmnop"), ("ijklmnop", "q")]),
    ],
)
def test_windows_of_a_text(made, text, calls):
    found = made("^")
    assert found.of_text(text) == -0.5 * len(text)
    assert found.model.calls == calls
