"""LoRA adapters merged into their models: W + scale * B A, written out."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
)

from tests.checkpoints.decoders import llama_folder
from triform.export.checkpoint.loading import load_model, read_config
from triform.export.checkpoint.processors import load_tokenizer
from triform.export.checkpoint.purpose import decide_purpose
from triform.export.checkpoint.resolve import find_checkpoint
from triform.models.catalog import auto_class
from triform.runtime.errors import ExportError

PREFIX = "base_model.model."
Q, V = "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj"
PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}


def factors(module, outside=96, inside=96, rank=2, seed=0):
    torch.manual_seed(seed)
    return {f"{module}.lora_A.weight": torch.randn(rank, inside), f"{module}.lora_B.weight": torch.randn(outside, rank)}


def product(tensors, module):
    return tensors[f"{module}.lora_B.weight"] @ tensors[f"{module}.lora_A.weight"]


def write_adapter(folder, tensors, pickle=False, **config):
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**PLAIN, **config}))
    named = {PREFIX + name: value for name, value in tensors.items()}
    if pickle:
        torch.save(named, folder / "adapter_model.bin")
    else:
        save_file(named, folder / "adapter_model.safetensors")
    return folder


def merged(folder, auto=AutoModelForCausalLM):
    source = find_checkpoint(str(folder))
    return load_model(source, read_config(source), auto).model.state_dict()


@pytest.fixture
def base(llama):
    return AutoModelForCausalLM.from_pretrained(llama).state_dict()


def check_changes(found, base, changes):
    """All weights are the base's but for these, which are theirs and a change."""
    for name, weight in base.items():
        expected = weight + changes[name] if name in changes else weight
        torch.testing.assert_close(found[name], expected, msg=name)


@pytest.mark.parametrize("pickle", [False, True])
def test_beside_its_model(llama, base, pickle):
    tensors = factors(Q)
    write_adapter(llama, tensors, pickle)
    check_changes(merged(llama), base, {f"{Q}.weight": 6 / 2 * product(tensors, Q)})


def test_alone_with_its_base_named(llama, base, tmp_path):
    tensors = factors(Q)
    folder = write_adapter(tmp_path / "tuned", tensors, base_model_name_or_path=str(llama))
    check_changes(merged(folder), base, {f"{Q}.weight": 3 * product(tensors, Q)})
    source = find_checkpoint(str(folder))
    found = decide_purpose(source, read_config(source), None)
    assert (found.task, found.because) == ("text-generation", "the adapter's task_type")


def test_an_adapter_beside_its_model_is_noted(llama, tmp_path):
    """The model's weights may have it already; those of a base model that is elsewhere have not."""
    write_adapter(llama, factors(Q))
    source = find_checkpoint(str(llama))
    (note,) = load_model(source, read_config(source), AutoModelForCausalLM).notes
    assert "the adapter beside the model was merged into it" in note and "remove adapter_config.json" in note
    (tmp_path / "tuned").mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (llama / name).rename(tmp_path / "tuned" / name)
    write_adapter(tmp_path / "tuned", factors(Q), base_model_name_or_path=str(llama))
    source = find_checkpoint(str(tmp_path / "tuned"))
    assert load_model(source, read_config(source), AutoModelForCausalLM).notes == ()


def test_a_chat_template_of_its_own(llama, tmp_path):
    folder = write_adapter(tmp_path / "tuned", factors(Q), base_model_name_or_path=str(llama))
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    tokenizer = load_tokenizer(find_checkpoint(str(folder)))
    assert tokenizer.chat_template == "{{ messages[0].content }}"
    assert tokenizer("ship")["input_ids"] == AutoTokenizer.from_pretrained(llama)("ship")["input_ids"]


def test_rank_stabilized(llama, base):
    tensors = factors(Q, rank=4)
    write_adapter(llama, tensors, r=4, use_rslora=True)
    check_changes(merged(llama), base, {f"{Q}.weight": 6 / 4**0.5 * product(tensors, Q)})


def test_ranks_and_scales_of_single_modules(llama, base):
    tensors = factors(Q, rank=3) | factors(V, outside=32, seed=1)
    write_adapter(llama, tensors, rank_pattern={"q_proj": 3}, alpha_pattern={"self_attn.v_proj": 1})
    changes = {f"{Q}.weight": 6 / 3 * product(tensors, Q), f"{V}.weight": 1 / 2 * product(tensors, V)}
    check_changes(merged(llama), base, changes)


def test_layers_that_keep_their_weights_the_other_way_round(tmp_path):
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=12, n_layer=1, n_head=2, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    base = GPT2LMHeadModel.from_pretrained(tmp_path).state_dict()
    module = "transformer.h.0.attn.c_attn"
    tensors = factors(module, outside=36, inside=12)
    write_adapter(tmp_path, tensors, fan_in_fan_out=True, target_modules=["c_attn"])
    check_changes(merged(tmp_path), base, {f"{module}.weight": 3 * product(tensors, module).T})


@pytest.mark.parametrize("name", ["lora_magnitude_vector", "lora_magnitude_vector.weight"])
def test_lengths_of_rows(llama, base, name):
    """DoRA: m (W + scale * B A) / |W + scale * B A|, by row."""
    tensors, lengths = factors(Q), torch.rand(96) + 0.5
    write_adapter(llama, tensors | {f"{Q}.{name}": lengths}, use_dora=True)
    changed = base[f"{Q}.weight"] + 3 * product(tensors, Q)
    expected = torch.stack([length * row / row.norm() for length, row in zip(lengths, changed, strict=True)])
    check_changes(merged(llama), base, {f"{Q}.weight": expected - base[f"{Q}.weight"]})


def test_an_expert_of_older_names(tmp_path):
    settings = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
                "num_attention_heads": 2, "num_key_value_heads": 1, "num_local_experts": 3}  # fmt: skip
    transformers.MixtralForCausalLM(transformers.MixtralConfig(**settings)).save_pretrained(tmp_path)
    write_adapter(tmp_path, factors("model.layers.0.block_sparse_moe.experts.0.w1", 48, 32))
    with pytest.raises(
        ExportError, match=r"experts\.0\.w1, one of several experts in one tensor, which is not supported"
    ):
        merged(tmp_path)


def test_embeddings(llama, base):
    # y = W[ids] + scale * (A.T[ids] @ B.T), as peft computes it.
    torch.manual_seed(0)
    a, b = torch.randn(2, 400), torch.randn(96, 2)
    name = "model.embed_tokens"
    write_adapter(llama, {f"{name}.lora_embedding_A": a, f"{name}.lora_embedding_B": b})
    check_changes(merged(llama), base, {f"{name}.weight": 3 * (a.T @ b.T)})


def test_modules_that_were_trained_whole(llama, tmp_path):
    """A classifier's head is new: the base has none."""
    folder = tmp_path / "tuned"
    score = torch.randn(3, 96)
    write_adapter(
        folder, factors(Q) | {"score.weight": score}, base_model_name_or_path=str(llama), task_type="SEQ_CLS",
        modules_to_save=["score"],
    )  # fmt: skip
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps({**config, "id2label": {"0": "a", "1": "b", "2": "c"}}))
    source = find_checkpoint(str(folder))
    assert decide_purpose(source, read_config(source), None).task == "text-classification"
    found = merged(folder, AutoModelForSequenceClassification)
    assert torch.equal(found["score.weight"], score)
    (llama / "config.json").write_text(json.dumps({**config, "id2label": {"0": "a", "1": "b"}}))
    with pytest.raises(ExportError, match=r"score.weight of the shape \(3, 96\), but its base model has \(2, 96\)"):
        merged(folder, AutoModelForSequenceClassification)


def test_biases_that_were_trained(tmp_path):
    settings = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
                "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16}  # fmt: skip
    torch.manual_seed(0)
    transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**settings)).save_pretrained(tmp_path)
    bias = torch.randn(32)
    for name in (f"{Q}.bias", f"{Q}.base_layer.bias"):
        write_adapter(tmp_path, factors(Q, 32, 32) | {name: bias}, bias="lora_only")
        assert torch.equal(merged(tmp_path)[f"{Q}.bias"], bias)


def test_the_trunk_alone(llama, base, tmp_path):
    """The adapter of a model with a head, merged into the same model without it."""
    tensors = factors(Q)
    write_adapter(llama, tensors)
    source = find_checkpoint(str(llama))
    config = read_config(source)
    found = load_model(source, config, auto_class(config, "feature-extraction")).model.state_dict()
    expected = base[f"{Q}.weight"] + 3 * product(tensors, Q)
    torch.testing.assert_close(found[f"{Q.removeprefix('model.')}.weight"], expected)


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"peft_type": "LOHA"}, "is the config of a LOHA adapter, but only LORA is supported"),
        ({"lora_bias": True}, "sets lora_bias"),
        ({"trainable_token_indices": [1, 2]}, "sets trainable_token_indices"),
        ({"layer_replication": [[0, 1]]}, "sets layer_replication"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "sets target_parameters"),
        ({"some_future_setting": 3}, "sets some_future_setting"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights pissa, which changes the base model too"),
        ({"init_lora_weights": "olora"}, "init_lora_weights olora"),
        ({"r": 8}, "has the rank 8, but its tensors have 2"),
        ({"lora_alpha": None}, "lora_alpha must be a float, not None"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a finite number"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern must be an object"),
        ({"rank_pattern": {"(": 2}}, r"has a pattern for names that is none: missing \)"),
    ],
)
def test_settings_that_are_not_supported_are_named(llama, config, text):
    write_adapter(llama, factors(Q), **config)
    with pytest.raises(ExportError, match=text):
        merged(llama)


@pytest.mark.parametrize(
    ("tensors", "text"),
    [
        (factors("model.layers.7.self_attn.q_proj"), "changes model.layers.7.self_attn.q_proj.weight, which its base"),
        (factors(Q, inside=32), r"by a matrix \(96, 32\), but its weight is \(96, 96\)"),
        ({f"{Q}.lora_A.weight": torch.ones(2, 96)}, "one of the two factors"),
        (factors(Q) | {f"{Q}.lora_B.bias": torch.ones(96)}, "lora_B.bias, which is not supported"),
        ({}, "holds an adapter without tensors, which changes nothing"),
        (factors("model.norm"), "adapts model.norm, the module LlamaRMSNorm"),
        ({"model.norm.weight": torch.ones(4)}, r"of the shape \(4,\), but its base model has \(96,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(llama, tensors, text):
    write_adapter(llama, tensors)
    with pytest.raises(ExportError, match=text):
        merged(llama)


@pytest.fixture
def tied(tmp_path):
    """A llama whose head is its embedding, (400, 96)."""
    return llama_folder(tmp_path / "tied", num_hidden_layers=1)


def test_a_head_apart_from_the_embedding_that_it_was_tied_to(tied):
    """As peft computes it: a change of one of two layers that share a weight does not reach the other."""
    base = AutoModelForCausalLM.from_pretrained(tied).state_dict()
    tensors = factors("lm_head", outside=400)
    write_adapter(tied, tensors)
    check_changes(merged(tied), base, {"lm_head.weight": 3 * product(tensors, "lm_head")})
    trained = torch.randn(400, 96)
    write_adapter(tied, {"model.embed_tokens.weight": trained}, modules_to_save=["embed_tokens"])
    check_changes(merged(tied), base, {"model.embed_tokens.weight": trained - base["model.embed_tokens.weight"]})


def test_a_head_that_stays_tied(tied):
    """Both are trained in the same way, which is saved twice."""
    trained = torch.randn(400, 96)
    names = ("model.embed_tokens.weight", "lm_head.weight")
    write_adapter(tied, {name: trained.clone() for name in names}, ensure_weight_tying=True)
    source = find_checkpoint(str(tied))
    model = load_model(source, read_config(source), AutoModelForCausalLM).model
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, trained)


def test_layers_that_peft_saves_below_their_adapters(llama, base):
    """With embeddings among its targets, and with trained biases, it writes base_layer.weight and base_layer.bias."""
    tensors = factors("lm_head", outside=400)
    write_adapter(llama, tensors | {"lm_head.base_layer.weight": torch.ones(400, 96)})
    changes = {"lm_head.weight": 1 - base["lm_head.weight"] + 3 * product(tensors, "lm_head")}
    check_changes(merged(llama), base, changes)


@pytest.mark.parametrize("head", ["lm_head.weight", "lm_head.modules_to_save.weight"])
def test_added_tokens(llama, base, head):
    """The embedding and the head are trained whole, with five more rows; the untrained copies are saved, too."""
    torch.manual_seed(0)
    embedding, rows = torch.randn(405, 96), torch.randn(405, 96)
    untrained = {"lm_head.original_module.weight": torch.ones(405, 96)}
    write_adapter(llama, {"model.embed_tokens.weight": embedding, head: rows} | untrained)
    source = find_checkpoint(str(llama))
    model = load_model(source, read_config(source), AutoModelForCausalLM).model
    assert torch.equal(model.model.embed_tokens.weight, embedding)
    assert torch.equal(model.lm_head.weight, rows)
    assert model.config.vocab_size == 405


def test_added_tokens_of_one_layer_alone(llama):
    write_adapter(llama, {"model.embed_tokens.weight": torch.ones(405, 96)})
    with pytest.raises(ExportError, match="changes the number of tokens of its base model, 400, but not all layers"):
        merged(llama)


def test_a_tensor_that_is_there_twice(llama):
    write_adapter(llama, {"lm_head.weight": torch.ones(400, 96), "lm_head.base_layer.weight": torch.zeros(400, 96)})
    with pytest.raises(ExportError, match=r"holds lm_head\.weight twice, with other numbers"):
        merged(llama)


def test_a_config_without_weights(llama):
    (llama / "adapter_config.json").write_text(json.dumps(PLAIN))
    with pytest.raises(ExportError, match=r"neither adapter_model\.safetensors nor adapter_model\.bin"):
        merged(llama)
