"""Texts, and what transformers makes of them."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer


@pytest.fixture(autouse=True)
def no_default_bundle(monkeypatch):
    monkeypatch.delenv("TRIFORM_BUNDLE", raising=False)


@pytest.fixture(scope="session")
def t5(exported_family):
    return exported_family("t5")[1]


@pytest.fixture(scope="session")
def written(exported_family):
    """What transformers' `generate` writes about a text, decoded: the answers, the best first."""

    @cache
    def load(family):
        folder = exported_family(family)[0]
        return AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)

    def write(text, family="t5", **settings):
        model, tokenizer = load(family)
        inputs = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            rows = model.generate(**inputs, do_sample=False, **settings)
        answers = tokenizer.batch_decode(rows, skip_special_tokens=True)
        return answers if settings.get("num_return_sequences") else answers[0]

    write.model = lambda family="t5": load(family)[0]
    write.tokenizer = lambda family="t5": load(family)[1]
    return write
