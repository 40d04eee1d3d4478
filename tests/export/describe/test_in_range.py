"""What a checkpoint asks for and no reader takes is left out of its manifest, and named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.checkpoints.decoders import byte_level_tokenizer
from triform.export.describe.in_range import in_range, unread_tokens
from triform.runtime.bundle.export_record import EndToken
from triform.runtime.bundle.manifest import Manifest, Tokens
from triform.runtime.checked_json import build

MANIFESTS = Path(__file__).parent.parent.parent / "runtime" / "bundle" / "manifests"


def manifest(file="decoder"):
    return build(Manifest, json.loads((MANIFESTS / f"{file}.json").read_text(encoding="utf-8")))


def test_what_is_in_range_stays():
    given = manifest()
    assert in_range(given) == (given, [])


def test_defaults():
    """The vocabulary has 400 tokens."""
    given = manifest()
    defaults = replace(given.generation, temperature=-1.0, top_k=7, suppress_tokens=[3, 400, 500], max_length=0)
    found, notes = in_range(replace(given, generation=defaults))
    assert found.generation == replace(given.generation, top_k=7)
    assert notes == [
        "left out the generation default temperature: it must be at least 0, not -1.0",
        "left out the generation default max_length: it must be at least 1, not 0",
        "left out the generation default suppress_tokens: it must be a token id from 0 to 399, not 400",
        "left out the generation default suppress_tokens: it must be a token id from 0 to 399, not 500",
    ]


def test_tokens():
    given = manifest()
    ends = [EndToken(399, "a", ["config"]), EndToken(400, "b", ["config"])]
    given = replace(given, tokens=Tokens(400, [399, 400, -1], 5, 401), export=replace(given.export, end_tokens=ends))
    found, notes = in_range(given)
    assert found.tokens == Tokens(None, [399], 5, None)
    assert found.export.end_tokens == ends[:1]
    assert [note.partition(":")[0] for note in notes] == [
        "left out the bos token", "left out the mask token", "left out the eos token", "left out the eos token",
    ]  # fmt: skip


@pytest.mark.parametrize(("vocabulary", "read"), [(None, 504), (600, 600), (100, 504)])
def test_a_model_may_read_more_tokens_than_it_writes(vocabulary, read):
    given = manifest("m2m_100")
    info = given.encoder_decoder
    given = replace(
        given,
        encoder_decoder=replace(info, text=replace(info.text, vocabulary=vocabulary)),
        tokens=Tokens(read - 1, [read - 1, read], read, None),
    )
    found, notes = in_range(given)
    assert found.tokens == Tokens(read - 1, [read - 1], None, None)
    assert len(notes) == 2


@pytest.mark.parametrize(
    ("added", "beyond"), [(0, None), (1, "1 ('new0')"), (7, "7 ('new0', 'new1', 'new2', 'new3', 'new4', …)")]
)
def test_tokens_that_the_model_does_not_read_are_named(tmp_path, added, beyond):
    """The manifest's vocabulary has 400 tokens, and so has the tokenizer without those that are added."""
    tokenizer = byte_level_tokenizer(400)
    tokenizer.add_tokens([f"new{index}" for index in range(added)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    notes = unread_tokens(manifest(), tmp_path)
    wanted = (
        f"the tokenizer has tokens beyond the 400 that the model reads: {beyond}; texts with one of them are refused"
    )
    assert notes == ([] if beyond is None else [wanted])
