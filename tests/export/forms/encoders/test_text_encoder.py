"""What an encoder of texts is exported with: lengths, kinds of classes and samples, on stand-ins of models."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from triform.export.checkpoint.sentence.sentence_transformers import SentenceModules
from triform.export.forms.encoders import text_encoder as module
from triform.export.forms.encoders.text_encoder import TextEncoder, parity_batches, text_samples
from triform.export.options import ExportOptions
from triform.runtime.errors import ExportError, InputError

MASKED = ("input_ids", "attention_mask")


def model_of(table=None, limit=None, **config):
    model = torch.nn.Module()
    if table is not None:
        model.embeddings = torch.nn.Module()
        model.embeddings.position_embeddings = table
    text = SimpleNamespace(max_position_embeddings=limit, vocab_size=config.pop("vocab_size", None), **config)
    model.config = SimpleNamespace(get_text_config=lambda: text, **config)
    return model


@pytest.fixture(autouse=True)
def whole(monkeypatch):
    """No model of these reads a text in parts."""
    monkeypatch.setattr(module, "whole_attention_limit", lambda config: None)


@pytest.mark.parametrize(
    ("table", "limit", "expected"),
    [
        (None, 512, 512), (None, None, None), (None, 0, None), (None, -1, None), (torch.nn.Embedding(512, 2), 512, 512),
        # RoBERTa's positions begin behind the padding index.
        (torch.nn.Embedding(514, 2, padding_idx=1), 514, 512), (torch.nn.Embedding(9, 2, padding_idx=0), 9, 8),
        (torch.nn.Embedding(9, 2, padding_idx=1), None, None), (torch.nn.Linear(2, 2), 9, 9),
    ],
)  # fmt: skip
def test_positions_of_a_model(table, limit, expected):
    assert module._positions(model_of(table, limit)) == expected


def test_positions_of_a_model_that_reads_the_rest_in_parts(monkeypatch):
    monkeypatch.setattr(module, "whole_attention_limit", lambda config: 64)
    assert module._positions(model_of(None, 512)) == 64


@pytest.mark.parametrize(
    ("sentences", "tokenizer", "positions", "asked", "expected"),
    [
        (None, 512, 512, None, 512), (None, 128, 512, None, 128), (None, 512, 256, None, 256),
        (384, 128, 512, None, 384),
        # Very large numbers are no limits.
        (None, 10**30, 512, None, 512), (None, 10**30, None, None, 512), (None, 10**9, None, None, 512),
        (None, 10**9 - 1, None, None, 10**9 - 1), (384, 10**30, None, None, 384),
        # What is asked for may be more than the tokenizer's limit, and no more than the model's.
        (None, 128, 512, 300, 300), (None, 128, 512, 512, 512), (None, 128, None, 10**4, 10**4),
        (None, 512, 512, 33, 33),
    ],
)  # fmt: skip
def test_the_longest_row(sentences, tokenizer, positions, asked, expected):
    checkpoint = SimpleNamespace(model=model_of(None, positions), tokenizer=SimpleNamespace(model_max_length=tokenizer))
    modules, options = SentenceModules(max_length=sentences), ExportOptions(context_length=asked)
    assert module._max_length(checkpoint, modules, options) == expected


def test_more_positions_than_a_model_has():
    checkpoint = SimpleNamespace(model=model_of(None, 512), tokenizer=SimpleNamespace(model_max_length=128))
    with pytest.raises(InputError, match=r"^`context_length` 513 is more than the model's own limit of 512$"):
        module._max_length(checkpoint, SentenceModules(), ExportOptions(context_length=513))


@pytest.mark.parametrize(
    ("task", "given", "labels", "expected"),
    [
        ("text-classification", None, 1, "multi_label_classification"),
        ("text-classification", None, 2, "single_label_classification"),
        ("text-classification", "regression", 1, "regression"),
        ("fill-mask", None, 1, None),
    ],
)
def test_kinds_of_classes(task, given, labels, expected):
    checkpoint = SimpleNamespace(model=model_of(problem_type=given, num_labels=labels))
    assert TextEncoder(checkpoint, task, SentenceModules(), None, 9).problem_type == expected


@pytest.mark.parametrize(("known", "expected"), [(None, 11), (7, 7)])
def test_the_size_of_a_vocabulary(monkeypatch, known, expected):
    checkpoint = SimpleNamespace(model=model_of(vocab_size=known), tokenizer=SimpleNamespace(vocab_size=11))
    encoder = TextEncoder(checkpoint, "fill-mask", SentenceModules(), None, 9)
    assert encoder.vocab_size == expected
    for padding, pad in ((None, 0), (3, 3)):
        monkeypatch.setattr(module, "padding_of", lambda *_, padding=padding: padding)
        assert encoder.pad == pad


@pytest.mark.parametrize(
    ("task", "own", "width", "refused"),
    [
        ("feature-extraction", 8, 4, True), ("feature-extraction", 4, 4, False), ("feature-extraction", None, 4, False),
        ("feature-extraction", 8, None, False), ("text-classification", 8, 4, False),
    ],
)  # fmt: skip
def test_the_width_of_a_pooling(monkeypatch, task, own, width, refused):
    modules = SentenceModules(width=own)
    monkeypatch.setattr(module, "read_modules", lambda path: modules)
    source = SimpleNamespace(gguf=None, path=None, name="it")
    checkpoint = SimpleNamespace(source=source, model=model_of(hidden_size=width))
    if not refused:
        assert module._modules(checkpoint, task) is modules
        assert module._modules(checkpoint, "fill-mask") == SentenceModules()
        return
    with pytest.raises(ExportError, match=r"^the pooling of it is for vectors of 8 numbers but gets 4$"):
        module._modules(checkpoint, task)


def encoder_of(names, *, vocab_size=200, min_length=1, max_length=9, picks=False):
    """Its tokenizer gives a letter of a text a token, up to so many."""

    def tokenizer(text, truncation, max_length):
        ids = [ord(letter) for letter in text][: max_length if truncation else None]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "unused": ids}

    traced = SimpleNamespace(names=names, picks_positions=picks)
    checkpoint = SimpleNamespace(tokenizer=tokenizer, model=model_of(vocab_size=vocab_size))
    return TextEncoder(checkpoint, "feature-extraction", SentenceModules(), traced, max_length, min_length)


def test_samples_of_texts():
    given = text_samples(encoder_of(MASKED, vocab_size=98, min_length=2, max_length=3), ["abcd", "a", "bc", ""])
    assert [{name: array.tolist() for name, array in sample.items()} for sample in given] == [
        {"input_ids": [97, 0, 1], "attention_mask": [1, 1, 1]}, {"input_ids": [0, 1], "attention_mask": [1, 1]},
    ]  # fmt: skip
    assert given[0]["input_ids"].dtype == np.int64
    picking = text_samples(encoder_of(MASKED, picks=True), ["abc"])
    assert picking[0]["logits_positions"].tolist() == [0, 1]
    # Prompts of every length that leaves a token.
    prompts = text_samples(encoder_of((*MASKED, "prompt_lengths")), ["ab", "ab", "abc", "ab"])
    assert [int(sample["prompt_lengths"]) for sample in prompts] == [0, 1, 2, 1]


def test_batches_that_are_compared(monkeypatch):
    monkeypatch.setattr(
        module.texts, "passages", lambda name, count: ["abcdefg"[: 7 - index] for index in range(count)]
    )
    (batch,) = parity_batches(encoder_of(MASKED))
    assert [len(sample["input_ids"]) for sample in batch] == [7, 6, 5, 4, 3]
    # Without a mask rows of one length stand together: lengths around 6, the shortest and the longest.
    equal = parity_batches(encoder_of(("input_ids",), min_length=4))
    assert [[sample["input_ids"].tolist() for sample in rows] for rows in equal] == [
        [list(b"abcdefg")[:length]] * count for length, count in ((7, 1), (6, 2), (5, 3), (4, 4))
    ]
