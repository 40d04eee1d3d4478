"""Configs with values that no model can have: one line, before anything is built by them."""

from __future__ import annotations

import json
import shutil

import pytest

from triform.export.checkpoint.sizes import check_counts, check_sizes
from triform.export.options import ExportOptions
from triform.export.pipeline import export, plan
from triform.runtime.errors import ExportError

WRONG_TYPES = {
    "config.json": {
        "architectures": (3, [3], "LlamaForCausalLM"),
        "model_type": (9,),
        "eos_token_id": ("y", [[1]], 1.5, {}),
        "pad_token_id": ("y", True, [0]),
        "max_position_embeddings": ("many", [2]),
        "tie_word_embeddings": ("maybe",),
        "num_hidden_layers": ("x", None, [1]),
        "rms_norm_eps": ("z",),
        "id2label": (5, {"0": [1]}),
        "quantization_config": (4,),
        "sentence_transformers": (4, [1], "x"),
        "rope_scaling": (3,),
        "rope_theta": ("a", [1.0], True, 0, -1.0, float("nan"), float("inf")),
        "rope_parameters": (
            {"rope_type": [1], "rope_theta": 1e4},
            {"rope_type": {}, "rope_theta": 1e4},
            {"rope_type": "linear", "rope_theta": 1e4, "factor": "2"},
            {"rope_type": "linear", "rope_theta": 1e4, "factor": 0},
            {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": "x", "long_factor": [1.0]},
        ),
        "dtype": (5, "float33", ["float32"], {"": 3}),
        "torch_dtype": (True, "nn"),
        "initializer_range": (float("nan"),),
        "is_encoder_decoder": ("a", 3),
        "chunk_size_feed_forward": ("a", 1.5),
    },
    "generation_config.json": {
        "eos_token_id": ("y", [[1]], {}),
        "bos_token_id": ([], "y", 1.5),
        "temperature": ("x", [1], float("nan")),
        "top_k": (2.5, "3", True),
        "num_beams": ("4",),
        "stop_strings": (5, [5]),
        "bad_words_ids": (7, [7], [["a"]]),
        "suppress_tokens": ("a", 3),
        "exponential_decay_length_penalty": ("a", [None, 1]),
        "do_sample": (1,),
    },
    "tokenizer_config.json": {
        "model_max_length": ("7", [7], {}),
        "clean_up_tokenization_spaces": ("no",),
    },
}
CASES = [(name, key, value) for name, keys in WRONG_TYPES.items() for key, values in keys.items() for value in values]


@pytest.mark.parametrize(("name", "key", "value"), CASES)
def test_wrong_types(checkpoint, tmp_path, name, key, value):
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    content = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps({**content, key: value}))
    with pytest.raises(ExportError) as caught:
        export(folder, tmp_path / "out", ExportOptions(quantize="none"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"eos_token_id": 99999999999', "\x00"])
def test_a_damaged_generation_config(checkpoint, tmp_path, content):
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    (folder / "generation_config.json").write_text(content)
    with pytest.raises(ExportError, match=r"generation_config\.json") as caught:
        export(folder, tmp_path / "out", ExportOptions(quantize="none"))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def _damage_tokenizer(checkpoint, folder, change):
    shutil.copytree(checkpoint, folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    change(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_a_tokenizer_that_gives_no_tokens(checkpoint, tmp_path):
    def drop_all(content):
        content["post_processor"] = {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}

    folder = _damage_tokenizer(checkpoint, tmp_path / "model", drop_all)
    with pytest.raises(ExportError, match="gives no tokens for ordinary text"):
        export(folder, tmp_path / "out", ExportOptions(quantize="none"))


def test_two_tokens_with_one_id(checkpoint, tmp_path):
    def share(content):
        vocabulary = content["model"]["vocab"]
        first, second = sorted(vocabulary, key=vocabulary.get)[-2:]
        vocabulary[second] = vocabulary[first]

    folder = _damage_tokenizer(checkpoint, tmp_path / "model", share)
    with pytest.raises(ExportError, match="have the same id, "):
        export(folder, tmp_path / "out", ExportOptions(quantize="none"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_hidden_layers", 10**9),
        ("hidden_size", 10**9),
        ("vocab_size", 10**12),
        ("intermediate_size", 10**10),
        ("head_dim", 10**9),
        ("max_position_embeddings", 10**30),
    ],
)
def test_sizes_that_the_weights_cannot_have(checkpoint, tmp_path, key, value):
    folder = shutil.copytree(checkpoint, tmp_path / "model")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(ExportError, match=rf"config.json says {key} is {value}, which no model of \d+ tensors and"):
        export(folder, tmp_path / "out", ExportOptions(quantize="none"))


def test_the_bounds():
    """1,000 layers at least may be there, as layers may share their weights; 8 numbers in a byte at most.

    Graphs have positions in 32 bits with a sign.
    """
    layers, positions = (("num_hidden_layers", 1000), ("llama.block_count", 1000)), ("n_positions", 2**31 - 1)
    for key, most in (*layers, ("text_config.d_model", 800), positions):
        for value, fits in ((most, True), (most + 1, False), ([1, most + 1], False)):
            *parents, name = key.split(".") if key.startswith("text") else [key]
            values = {name: value} if not parents else {parents[0]: {name: value}}
            if fits:
                check_sizes("x", values, tensors=3, size=100)
            else:
                with pytest.raises(ExportError, match=f"x says {key} is {most + 1}"):
                    check_sizes("x", values, tensors=3, size=100)
    check_sizes("x", {"num_hidden_layers": 2000, "note": 10**30, "hidden_size": "text"}, tensors=2000, size=100)


def test_the_bounds_of_counts_alone():
    for key, most in (("num_hidden_layers", 1000), ("n_layer", 1000), ("num_local_experts", 10_000)):
        check_counts("x", {key: most, "hidden_size": 10**12, "other": {key: [1, most]}})
        for values in ({key: most + 1}, {"other": {key: [1, most + 1]}}):
            with pytest.raises(ExportError, match=rf"^x says (other\.)?{key} is {most + 1}, which no model has"):
                check_counts("x", values)


@pytest.mark.parametrize(
    ("kind", "key"),
    [("t5", "num_layers"), ("t5", "num_decoder_layers"), ("mixtral", "num_local_experts"), ("gpt2", "n_layer")],
)
def test_counts_without_weights_to_compare_them_with(tmp_path, kind, key):
    """A dry run of a config alone builds the model that it says, layer by layer."""
    config = {"model_type": kind, "architectures": [{"t5": "T5ForConditionalGeneration"}.get(kind, "X")], key: 10**9}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match=f"says {key} is 1000000000, which no model has") as caught:
        plan(tmp_path)
    assert "\n" not in str(caught.value)
