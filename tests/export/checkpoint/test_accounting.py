"""Which tensors of a checkpoint a model reads, by transformers' classes, renamings and lists of what it ignores."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
)
from transformers.models.bert import modeling_bert

from triform.export.checkpoint.accounting import _relatives as relatives
from triform.export.checkpoint.accounting import left_out, match, parts_lacked, renamed, without_weights
from triform.runtime.errors import ExportError

SIZES = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
BERT = BertConfig(vocab_size=11, max_position_embeddings=9, **SIZES)
LLAMA = LlamaConfig(vocab_size=11, tie_word_embeddings=True, **SIZES)


class Skipping(LlamaForCausalLM):
    """Ignores a part that it does not have, and numbers of one that it has."""

    _keys_to_ignore_on_load_unexpected = (r"^talker\.", r"norm\.old$")


def names_of(model):
    return set(model.state_dict())


def test_names_of_a_llama():
    model = without_weights(LlamaForCausalLM, LLAMA)
    held = names_of(model)
    assert "lm_head.weight" in held
    # The head is tied to the table, and inv_freq is computed today.
    read = held - {"lm_head.weight"} | {"model.rotary_emb.inv_freq", "model.layers.0.self_attn.rotary_emb.inv_freq"}
    found = match(model, read)
    assert (found.missing, found.unread, found.skipped) == (set(), set(), set())
    found = match(model, read - {"model.norm.weight"} | {"extra.weight"})
    assert (found.missing, found.unread, found.skipped) == ({"model.norm.weight"}, {"extra.weight"}, set())
    # The trunk alone has no prefix.
    assert match(model, {name.removeprefix("model.") for name in read}) == match(model, read)


def test_parts_that_transformers_skips():
    model = without_weights(Skipping, LLAMA)
    names = names_of(model) | {"talker.head.weight", "model.norm.old", "extra.weight"}
    found = match(model, names)
    assert (found.missing, found.unread, found.skipped) == (set(), {"extra.weight"}, {"talker.head.weight"})


def test_several_tensors_that_become_one():
    model = without_weights(MixtralForCausalLM, MixtralConfig(vocab_size=11, num_local_experts=2, **SIZES))
    experts = {name for name in names_of(model) if ".experts." in name}
    assert len(experts) == 2
    old = {f"model.layers.0.block_sparse_moe.experts.{n}.w{m}.weight" for n in range(2) for m in (1, 2, 3)}
    other = {name.replace(".mlp.", ".block_sparse_moe.") for name in names_of(model) - experts}
    found = match(model, other | old)
    assert (found.missing, found.unread) == (set(), set())
    assert match(model, other).missing == experts
    assert (
        renamed(model, "model.layers.0.block_sparse_moe.experts.1.w2.weight") == "model.layers.0.mlp.experts.down_proj"
    )


def test_one_tensor_that_becomes_several():
    sizes = {key: value for key, value in SIZES.items() if key != "intermediate_size"}
    model = without_weights(Dinov2Model, Dinov2Config(use_swiglu_ffn=True, image_size=4, patch_size=2, **sizes))
    new = {name for name in names_of(model) if "gate_proj" in name or "up_proj" in name}
    assert len(new) == 4
    old = {name.replace("gate_proj", "weights_in") for name in new if "gate_proj" in name}
    found = match(model, names_of(model) - new | old)
    assert (found.missing, found.unread) == (set(), set())
    assert match(model, names_of(model) - new).missing == new


def test_a_name_that_only_looks_like_one_of_another_release():
    class Own(PreTrainedModel):
        config_class = LlamaConfig
        base_model_prefix = "model"

        def __init__(self, config):
            super().__init__(config)
            self.LayerNorm = torch.nn.ParameterDict({"gamma": torch.ones(2)})
            self.other = torch.nn.ModuleDict({"LayerNorm": torch.nn.LayerNorm(2)})

    model = Own(LLAMA)
    assert renamed(model, "LayerNorm.gamma") == "LayerNorm.gamma"
    assert renamed(model, "other.LayerNorm.gamma") == "other.LayerNorm.weight"


def test_the_classes_of_a_family_are_those_that_transformers_lists():
    model = without_weights(BertModel, BERT)
    listed = {name for name in modeling_bert.__all__ if isinstance(getattr(modeling_bert, name), type)}
    models = {name for name in listed if issubclass(getattr(modeling_bert, name), PreTrainedModel)}
    assert {found.__name__ for found in relatives(model)} == models - {"BertModel", "BertLayer"}


def test_weights_for_another_task_are_left_out():
    model, whole = without_weights(BertForSequenceClassification, BERT), without_weights(BertForMaskedLM, BERT)
    head = {name for name in names_of(whole) if name.startswith("cls.")}
    assert head
    names = names_of(model) | head
    assert set(left_out("it", model, head, names)) == head
    # What transformers does not report it has read.
    assert left_out("it", model, set(), names) == ()


@pytest.mark.parametrize(("count", "listed"), [(1, "x0"), (3, "x0, x1, x2"), (4, "x0, x1, x2 and 1 more")])
def test_weights_that_no_class_reads(count, listed):
    model = without_weights(BertForSequenceClassification, BERT)
    lost = {f"x{index}" for index in range(count)}
    said = (
        f"^it has weights that a BertForSequenceClassification does not read and that would be lost: {listed}; "
        "its config does not say what they are for$"
    )
    with pytest.raises(ExportError, match=said):
        left_out("it", model, lost, names_of(model) | lost)


def test_parts_that_a_model_lacks_are_counted():
    names = ["eyes.0.weight", "eyes.1.weight", "eyes.1.bias", "bert.encoder.new.weight", "bert.encoder.layer.0.scale"]
    assert list(parts_lacked(without_weights(BertForMaskedLM, BERT), names).items()) == [
        ("eyes", 3), ("bert.encoder.new", 1), ("bert.encoder.layer.0.scale", 1),
    ]  # fmt: skip
