"""Logits of whole texts, on a stand-in for the model: up to the last token of the context."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.fake_memory import CACHE, VOCABULARY, FakeMemory, logits_of, manifest_of
from triform.runtime.decoder.model import Decoder
from triform.runtime.errors import ContextError
from triform.runtime.graphs.decoding.step import DecoderStep

CONTEXT = 40


@pytest.fixture
def decoder():
    """Texts are digits; each is a token."""
    made = object.__new__(Decoder)
    manifest = manifest_of(CONTEXT)
    made._bundle = SimpleNamespace(manifest=manifest)
    made._prompts = SimpleNamespace(text_ids=lambda text: [int(digit) for digit in text])
    made._turns = SimpleNamespace(call=nullcontext)
    made._begun = 0
    made._step = DecoderStep(None, manifest, CACHE, FakeMemory())
    return made


@pytest.mark.parametrize("length", [1, 17, CONTEXT])
def test_each_token_has_logits(decoder, length):
    ids = [place % 10 for place in range(length)]
    found = decoder.logits("".join(map(str, ids)))
    assert found.dtype == np.float32 and found.shape == (length, VOCABULARY)
    np.testing.assert_array_equal(found, [logits_of(ids[: place + 1]) for place in range(length)])
    # What came before changes nothing.
    np.testing.assert_array_equal(decoder.logits("12"), [logits_of([1]), logits_of([1, 2])])


def test_a_text_that_is_longer_than_the_context(decoder):
    with pytest.raises(ContextError, match=r"^the prompt has 41 tokens but this model's context is 40; shorten it$"):
        decoder.logits("1" * (CONTEXT + 1))
