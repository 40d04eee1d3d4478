"""Folders of sentence-transformers: every module and setting is honoured, or refused by its name."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import AutoTokenizer, BertModel, BertTokenizerFast

from tests.checkpoints.decoders import byte_level_tokenizer
from tests.checkpoints.encoders import SPECIAL, sentence_folder, word_piece_tokenizer
from tests.checkpoints.hub_cache import add_to_cache
from triform.export.checkpoint.loading import read_config
from triform.export.checkpoint.purpose import decide_purpose
from triform.export.checkpoint.resolve import find_checkpoint
from triform.export.checkpoint.sentence.sentence_transformers import lower_case, read_modules
from triform.export.forms import encoder as encoder_export
from triform.export.forms.encoders.text_encoder import text_encoder
from triform.export.options import ExportOptions
from triform.models.encoder.graph import reference_outputs
from triform.models.encoder.pooling import POOLINGS
from triform.runtime.errors import ExportError

IDS = torch.tensor([[2, 40, 50, 60, 3]])


@pytest.fixture(scope="session")
def shared_whole(tmp_path_factory):
    """Every pooling at once, joined, and every layer, without Normalize."""
    torch.manual_seed(1)
    dense = {"in_features": 288, "out_features": 20, "activation_function": "torch.nn.modules.activation.Tanh"}
    weights = {"linear.weight": torch.randn(20, 6 * 48) / 8, "linear.bias": torch.randn(20)}
    norm = {"norm.weight": torch.randn(20), "norm.bias": torch.randn(20)}
    flags = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
    return sentence_folder(
        tmp_path_factory.mktemp("whole") / "whole",
        {"word_embedding_dimension": 48, **{f"pooling_mode_{flag}": True for flag in flags}},
        [("Dense", dense, weights), ("Dropout", {"dropout": 0.5}, {}), ("LayerNorm", {"dimension": 20}, norm)],
        normalize=False,
        prompts={"query": "query: "},
        default_prompt_name="query",
    )


@pytest.fixture
def whole(shared_whole, tmp_path):
    return shutil.copytree(shared_whole, tmp_path / "whole")


@pytest.fixture(scope="session")
def shared_cls(tmp_path_factory):
    return sentence_folder(
        tmp_path_factory.mktemp("cls") / "cls",
        {"word_embedding_dimension": 48, "pooling_mode_cls_token": True},
        [],
        normalize=True,
        prompts={"query": "Q: "},
    )


@pytest.fixture
def cls(shared_cls, tmp_path):
    return shutil.copytree(shared_cls, tmp_path / "cls")


def edit(path, **changes):
    path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **changes}))


def opened(source):
    origin = find_checkpoint(str(source))
    config = read_config(origin)
    origin = dataclasses.replace(origin, task=decide_purpose(origin, config, None).task)
    options = ExportOptions()
    return text_encoder(encoder_export.load(origin, config, options), options)


def vector(source, ids=IDS):
    """The vector of a row of tokens, as PyTorch computes what would be traced."""
    encoder = opened(source)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    outputs = reference_outputs(
        encoder.checkpoint.model, encoder.traced, tuple(inputs[n] for n in encoder.traced.names)
    )
    return outputs[-1]


def states(folder, ids=IDS):
    with torch.no_grad():
        return BertModel.from_pretrained(folder)(ids).last_hidden_state[0]


def test_a_hub_id_is_read_as_its_folder(cache, cls):
    add_to_cache(cache, "org/cls", cls)
    encoders = [opened(source) for source in (cls, "org/cls")]
    for encoder in encoders:
        modules = encoder.modules
        assert (modules.pooling, modules.normalize, modules.prompts) == (("cls",), True, {"query": "Q: "})
        assert (encoder.max_length, modules.lower_case) == (40, True)
    assert torch.equal(vector(cls), vector("org/cls"))
    first = states(cls)[0]
    torch.testing.assert_close(vector("org/cls")[0], first / first.norm())


def test_the_first_layout(cls, cache, tmp_path):
    expected = vector(cls)
    inner = cls / "0_BERT"
    inner.mkdir()
    moved = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json")
    for name in moved:
        shutil.move(cls / name, inner / name)
    modules = json.loads((cls / "modules.json").read_text())
    for kind in ("sentence_transformers.models.BERT", "sentence_transformers.models.Transformer"):
        modules[0] |= {"path": "0_BERT", "type": kind}
        (cls / "modules.json").write_text(json.dumps(modules))
        assert torch.equal(vector(cls), expected)
        assert opened(cls).max_length == 40
    add_to_cache(cache, "org/old", cls)
    assert torch.equal(vector("org/old"), expected)


def test_an_adapter_with_modules_of_its_own(cls, tmp_path):
    """sentence-transformers saves an adapter in place of the model: pooling and prompts are those of its folder."""
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        shutil.move(cls / name, base / name)
    module, width = "encoder.layer.0.attention.self.query", 48
    factors = {"A": torch.zeros(2, width), "B": torch.ones(width, 2)}
    save_file(
        {f"base_model.model.{module}.lora_{name}.weight": value for name, value in factors.items()},
        cls / "adapter_model.safetensors",
    )
    edit(cls / "adapter_config.json", peft_type="LORA", r=2, base_model_name_or_path=str(base))
    modules = opened(cls).modules
    assert (modules.pooling, modules.normalize, modules.prompts) == (("cls",), True, {"query": "Q: "})
    first = states(base)[0]
    torch.testing.assert_close(vector(cls)[0], first / first.norm())


def test_a_folder_that_names_another_head(cls):
    edit(cls / "config.json", architectures=["BertForMaskedLM"])
    first = states(cls)[0]
    torch.testing.assert_close(vector(cls)[0], first / first.norm())


def test_what_is_read_of_a_folder(whole, cls, tmp_path):
    modules = read_modules(cls)
    assert (modules.pooling, modules.dense, modules.normalize, modules.max_length) == (("cls",), (), True, 40)
    modules = read_modules(whole)
    assert (modules.pooling, modules.default_prompt, modules.normalize) == (tuple(POOLINGS), "query", False)
    assert read_modules(tmp_path) is None
    (whole / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 48, "pooling_mode": ["max", "cls"]}')
    assert read_modules(whole).pooling == ("max", "cls")
    (whole / "1_Pooling" / "config.json").write_text('{"embedding_dimension": 48}')
    assert read_modules(whole).pooling == ("mean",)


def test_layers_from_pickles(whole):
    expected = vector(whole)
    from safetensors.torch import load_file

    for name in ("2_Dense", "4_LayerNorm"):
        path = whole / name / "model.safetensors"
        torch.save(load_file(path), whole / name / "pytorch_model.bin")
        path.unlink()
    assert torch.equal(vector(whole), expected)


class TestDense:
    """Against y = activation(W x + b) written out."""

    def made(self, cls, config, weights):
        from safetensors.torch import save_file

        place = cls / "2_Dense"
        place.mkdir()
        (place / "config.json").write_text(json.dumps({"in_features": 48, **config}))
        save_file(weights, place / "model.safetensors")
        modules = json.loads((cls / "modules.json").read_text())
        modules[2] = {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
        (cls / "modules.json").write_text(json.dumps(modules))
        return vector(cls)[0], states(cls)[0]

    @pytest.mark.parametrize(
        ("name", "function"),
        [
            ("torch.nn.modules.activation.Tanh", torch.tanh),
            ("torch.nn.modules.linear.Identity", lambda x: x),
            ("torch.nn.modules.activation.SiLU", lambda x: x * torch.sigmoid(x)),
            ("torch.nn.modules.activation.LeakyReLU", lambda x: torch.where(x > 0, x, 0.01 * x)),
            ("torch.nn.modules.activation.Softplus", lambda x: torch.log1p(x.exp())),
            (None, lambda x: x),
        ],
    )
    def test_activations(self, cls, name, function):
        weight = torch.randn(7, 48) / 7
        config = {"out_features": 7, "bias": False, "activation_function": name}
        result, first = self.made(cls, config, {"linear.weight": weight})
        torch.testing.assert_close(result, function(weight @ first))

    def test_the_activation_of_a_config_without_one(self, cls):
        weight, bias = torch.randn(7, 48) / 7, torch.randn(7)
        result, first = self.made(cls, {"out_features": 7}, {"linear.weight": weight, "linear.bias": bias})
        torch.testing.assert_close(result, torch.tanh(weight @ first + bias))

    def test_a_residual_of_the_same_width(self, cls):
        weight = torch.randn(48, 48) / 7
        config = {"out_features": 48, "bias": False, "use_residual": True}
        result, first = self.made(cls, config, {"linear.weight": weight})
        torch.testing.assert_close(result, torch.tanh(weight @ first) + first)

    def test_a_residual_of_another_width(self, cls):
        weight, other = torch.randn(7, 48) / 7, torch.randn(7, 48) / 7
        config = {"out_features": 7, "bias": False, "use_residual": True}
        result, first = self.made(cls, config, {"linear.weight": weight, "residual.weight": other})
        torch.testing.assert_close(result, torch.tanh(weight @ first) + other @ first)


def test_vectors_that_are_cut(cls):
    full = vector(cls)
    edit(cls / "config_sentence_transformers.json", truncate_dim=5)
    assert torch.equal(vector(cls), full[:, :5])


class TestReading:
    def test_lower_case_comes_before_what_the_tokenizer_does(self, cls):
        # No normalizer of its own: "Das" would be unknown, and "das" is not.
        content = json.loads((cls / "tokenizer.json").read_text())
        (cls / "tokenizer.json").write_text(json.dumps({**content, "normalizer": None}))
        edit(cls / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
        plain = AutoTokenizer.from_pretrained(cls)
        tokenizer = opened(cls).checkpoint.tokenizer
        assert plain("THE sea")["input_ids"] != plain("the sea")["input_ids"]
        assert tokenizer("THE sea")["input_ids"] == plain("the sea")["input_ids"]
        edit(cls / "sentence_bert_config.json", do_lower_case=False)
        assert opened(cls).checkpoint.tokenizer("THE sea")["input_ids"] == plain("THE sea")["input_ids"]

    def test_a_normalizer_that_is_there_is_kept(self):
        tokenizer = BertTokenizerFast(tokenizer_object=word_piece_tokenizer())
        expected = tokenizer("Café THE")["input_ids"]
        lower_case(tokenizer)
        lower_case(tokenizer)
        assert tokenizer("Café THE")["input_ids"] == expected
        assert str(tokenizer.backend_tokenizer.normalizer).count("Lowercase()") == 1

    @pytest.mark.parametrize("text", ["a [MASK] and [SEP] b [mask]", "ΟΔΟΣ ΣΑΣ Σ 'ΣΑΣ'", "İstanbul STRAẞE ǅ"])
    def test_it_is_the_small_letters_of_python(self, text):
        """sentence-transformers calls `str.lower` before its tokenizer reads anything, special tokens too."""
        content = json.loads(byte_level_tokenizer(400).to_str())
        content["model"]["vocab"] |= {token: 400 + index for index, token in enumerate(SPECIAL)}
        tokenizer = BertTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)))
        tokenizer.backend_tokenizer.normalizer = None
        expected = tokenizer(text.lower())["input_ids"]
        assert expected != tokenizer(text)["input_ids"]
        lower_case(tokenizer)
        assert tokenizer(text)["input_ids"] == expected
        assert tokenizer.mask_token_id == 400 + SPECIAL.index("[MASK]")

    def test_a_tokenizer_without_a_normalizer(self):
        with pytest.raises(ExportError, match="do_lower_case"):
            lower_case(object())

    @pytest.mark.parametrize("name", ["tokenizer_args", "processor_kwargs"])
    def test_a_length_that_the_tokenizer_is_made_with(self, cls, name):
        edit(cls / "sentence_bert_config.json", **{name: {"model_max_length": 24}})
        assert opened(cls).max_length == 24

    def test_without_a_length_of_its_own(self, cls):
        (cls / "sentence_bert_config.json").write_text("{}")
        assert opened(cls).max_length == 96

    def test_settings_that_change_nothing(self, cls):
        edit(
            cls / "sentence_bert_config.json",
            model_args={"torch_dtype": "float16", "attn_implementation": "sdpa"},
            modality_config={"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            module_output_name="token_embeddings",
            transformer_task="feature-extraction",
            unpad_inputs=False,
        )
        assert opened(cls).modules.pooling == ("cls",)


def retype(index, kind):
    def damage(folder):
        modules = json.loads((folder / "modules.json").read_text())
        modules[index]["type"] = kind
        (folder / "modules.json").write_text(json.dumps(modules))

    return damage


def edited(name, **changes):
    return lambda folder: edit(folder / name, **changes)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda folder: (folder / "modules.json").write_text("{"), "modules.json cannot be read"),
        (lambda folder: (folder / "modules.json").write_text("{}"), "must hold a list"),
        (lambda folder: (folder / "modules.json").write_text("[]"), "in an order that is not supported: none"),
        (retype(2, "sentence_transformers.models.LSTM"), "a module sentence_transformers.models.LSTM"),
        (retype(0, "custom_code.Transformer"), "a module custom_code.Transformer"),
        (retype(2, "sentence_transformers.models.Normalize"), "Transformer, Pooling, Normalize, Dropout, LayerNorm"),
        (retype(2, "sentence_transformers.models.Pooling"), "in an order"),
        (edited("1_Pooling/config.json", pooling_mode="median"), "pooling median"),
        (edited("1_Pooling/config.json", pooling_mode_attention=True), "sets pooling_mode_attention"),
        (lambda folder: (folder / "1_Pooling" / "config.json").unlink(), "config.json cannot be read"),
        (edited("sentence_bert_config.json", transformer_task="fill-mask"), "is for fill-mask"),
        (edited("sentence_bert_config.json", query_length=32), "sets query_length"),
        (edited("sentence_bert_config.json", config_args={"is_causal": True}), "sets is_causal"),
        (edited("sentence_bert_config.json", tokenizer_args={"add_eos_token": True}), "sets add_eos_token"),
        (edited("sentence_bert_config.json", modality_config={"message": {}}), "modality_config"),
        (
            edited("sentence_bert_config.json", modality_config={"text": {"method_output_name": "pooler_output"}}),
            "modality_config",
        ),
        (edited("2_Dense/config.json", module_input_name="token_embeddings"), "works on token_embeddings"),
        (edited("2_Dense/config.json", module_output_name="other"), "works on other"),
        (edited("2_Dense/config.json", activation_function="a.B"), "the activation a.B"),
        (edited("2_Dense/config.json", activation_function="torch.nn.modules.activation.Gone"), "activation torch"),
        (
            edited("2_Dense/config.json", activation_function="torch.nn.modules.activation.MultiheadAttention"),
            "activation torch.nn.modules.activation.MultiheadAttention",
        ),
        (edited("2_Dense/config.json", in_features=3), "do not fit its config.json"),
        (edited("2_Dense/config.json", bias=False), "do not fit its config.json: Unexpected"),
        (edited("2_Dense/config.json", scale=2.0), "sets scale"),
        (lambda folder: (folder / "2_Dense" / "config.json").write_text("{}"), "has no in_features"),
        (lambda folder: (folder / "2_Dense" / "model.safetensors").unlink(), "neither model.safetensors nor"),
        (edited("config_sentence_transformers.json", prompts=["a"]), "prompts must be"),
        (edited("config_sentence_transformers.json", prompts={"a": 1}), "prompts must be"),
        (edited("config_sentence_transformers.json", truncate_dim="ten"), "truncate_dim must be"),
        (edited("config_sentence_transformers.json", whitening=True), "sets whitening"),
        (edited("config_sentence_transformers.json", model_type="SparseEncoder"), "a SparseEncoder"),
        (edited("sentence_bert_config.json", max_seq_length="long"), "max_seq_length must be"),
        (edited("config_sentence_transformers.json", default_prompt_name="gone"), "no prompt called 'gone'"),
    ],
)
def test_folders_that_are_refused(whole, damage, text):
    damage(whole)
    with pytest.raises(ExportError, match=text):
        read_modules(whole)


def test_a_pooling_of_another_width(cls):
    edit(cls / "1_Pooling" / "config.json", word_embedding_dimension=64)
    with pytest.raises(ExportError, match="the pooling of cls is for vectors of 64 numbers but gets 48"):
        opened(cls)
