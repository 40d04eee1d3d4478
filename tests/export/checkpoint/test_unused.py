"""Weights that what a bundle gives does not depend on are found by following the output back to them."""

from __future__ import annotations

import pytest
import torch
from transformers import T5Gemma2Config

from triform.export.checkpoint.accounting import unreached_parts, unreached_weights
from triform.models.catalog import named_task
from triform.models.errors import UnsupportedModelError


class Model(torch.nn.Module):
    """Reads texts by `text`, and would read images by `eyes`."""

    def __init__(self):
        super().__init__()
        self.text = torch.nn.ModuleDict({"table": torch.nn.Embedding(7, 4), "spare": torch.nn.Linear(4, 3)})
        self.eyes = torch.nn.Sequential(torch.nn.Linear(5, 6), torch.nn.Linear(6, 4))
        self.scale = torch.nn.Parameter(torch.ones(4))
        self.bias = torch.nn.Parameter(torch.ones(4))

    def forward(self, ids):
        return torch.nn.functional.linear(
            self.text["table"](ids) * self.scale * torch.ones(4), self.text["table"].weight
        )


def test_what_an_output_does_not_depend_on_is_found_and_counted_by_part():
    model = Model()
    names = unreached_weights(model, model(torch.tensor([[1, 2]])))
    assert names == (
        "bias", "eyes.0.bias", "eyes.0.weight", "eyes.1.bias", "eyes.1.weight", "text.spare.bias", "text.spare.weight",
    )  # fmt: skip
    assert list(unreached_parts(model, names).items()) == [("eyes", 4), ("text.spare", 2), ("bias", 1)]


def test_a_part_of_which_something_is_used_is_not_unused():
    model = torch.nn.Module()
    model.text = torch.nn.ModuleDict({"deep": torch.nn.ModuleDict(dict.fromkeys("ab", None))})
    model.text["deep"].update({name: torch.nn.Linear(2, 2) for name in "abc"})
    unused = ("text.deep.b.bias", "text.deep.b.weight", "text.deep.c.bias")
    assert unreached_parts(model, unused) == {"text.deep.b": 2, "text.deep.c.bias": 1}


def test_a_model_that_rewrites_texts_and_sees_offers_its_part_for_texts():
    config = T5Gemma2Config(architectures=["T5Gemma2ForConditionalGeneration"])
    with pytest.raises(UnsupportedModelError, match="; --task text2text-generation exports what it does with texts"):
        named_task(config)
