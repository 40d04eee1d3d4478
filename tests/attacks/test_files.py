"""Damaged files of a bundle: whichever bit is another, a bundle is not loaded."""

from __future__ import annotations

import random

import pytest

import triform
from triform.runtime.errors import BundleError

NAMES = ("manifest.json", "tokenizer.json", "chat_template.jinja", "decoder.onnx", "decoder.onnx.data")


@pytest.mark.parametrize("name", NAMES)
def test_one_bit(own_bundle, name):
    whole = (own_bundle / name).read_bytes()
    chance = random.Random(name)
    for place in chance.sample(range(8 * len(whole)), 25):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        (own_bundle / name).write_bytes(content)
        with pytest.raises(BundleError) as caught:
            triform.load(own_bundle)
        assert str(caught.value).isprintable()
    (own_bundle / name).write_bytes(whole)
    assert triform.load(own_bundle).manifest.form == "decoder"


@pytest.mark.parametrize("name", NAMES)
def test_cut_off_or_longer(own_bundle, name):
    whole = (own_bundle / name).read_bytes()
    for content in (b"", whole[: len(whole) // 3], whole[:-1], whole + b"\n", whole + whole):
        (own_bundle / name).write_bytes(content)
        with pytest.raises(BundleError) as caught:
            triform.load(own_bundle)
        assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", NAMES)
def test_files_that_change_places(own_bundle, name):
    """Of the right size, and each of the bundle's own."""
    other = next(known for known in NAMES if known != name)
    content = (own_bundle / other).read_bytes()
    size = (own_bundle / name).stat().st_size
    (own_bundle / name).write_bytes((content * (size // len(content) + 1))[:size])
    with pytest.raises(BundleError):
        triform.load(own_bundle)
