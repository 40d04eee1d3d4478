"""Heads that are for no task, such as a projection into another model's space, by the weights of a small BERT."""

from __future__ import annotations

import pytest
from transformers import BertConfig, BertModel, LlamaConfig

from triform.export.checkpoint.accounting import without_weights
from triform.export.checkpoint.purpose import _check_head as check_head
from triform.models.errors import UnsupportedModelError

SIZES = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 11}
OWN = set(without_weights(BertModel, BertConfig(**SIZES)).state_dict())


@pytest.mark.parametrize(
    ("architecture", "more", "less", "said"),
    [
        ("OwnBert", set(), set(), None),
        ("OwnBert", {"b.weight", "a.weight"}, set(),
         "OwnBert has 2 weights that no bundle has a use for, such as a.weight; --task feature-extraction exports it "
         "without them"),
        ("OwnBert", {"a.weight"}, {"embeddings.word_embeddings.weight"},
         "OwnBert has 1 weights that no bundle has a use for, such as a.weight"),
        # The class without a head, one that was trained on several tasks, and none at all.
        ("BertModel", {"a.weight"}, set(), None), ("BertForPreTraining", {"a.weight"}, set(), None),
        ("", {"a.weight"}, set(), None),
    ],
)  # fmt: skip
def test_heads_that_are_for_no_task(architecture, more, less, said):
    config = BertConfig(architectures=[architecture], **SIZES)
    names = sorted(OWN - less | more)
    if said is None:
        check_head(config, "feature-extraction", names)
        return
    with pytest.raises(UnsupportedModelError) as caught:
        check_head(config, "feature-extraction", names)
    assert str(caught.value) == said


def test_a_task_without_a_class_has_no_head_to_check():
    config = LlamaConfig(architectures=["Own"], **SIZES)
    assert check_head(config, "fill-mask", ["a.weight"]) is None
