"""Decoders from quantized GGUF files compute with the files' own numbers, whatever blocks these are in."""

from __future__ import annotations

import dataclasses
import gc
import math

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Format
from transformers import AutoModelForCausalLM

import triform
from tests.checkpoints.gguf_blocks import random_tensor
from tests.checkpoints.gguf_files import make_model, write_gguf
from triform.export.checkpoint.gguf import loading
from triform.export.checkpoint.gguf.container import Tensor
from triform.export.checkpoint.gguf.placed_blocks import blocks_of
from triform.export.forms.decoders import blocks
from triform.export.graph.packed import pack_apart
from triform.export.options import ExportOptions
from triform.export.pipeline import export, plan
from triform.export.quantize.stored import blocks as stored_blocks
from triform.runtime.errors import ExportError, InputError

# Rows are whole super-blocks, which have 256 numbers.
SIZES = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4}
GPT2 = {"n_embd": 256, "n_inner": 512, "n_layer": 2, "n_head": 4}
TEXT = "a house by the sea"
# By what a tensor's name has in it; the first that fits.
MIXTURES = {
    # As llama.cpp mixes them: queries and keys in other blocks than values, a tied table and head.
    "llama": {"attn_v": "Q6_K", "attn_": "Q4_K", "ffn_down": "Q5_K", "ffn_": "Q4_K", "token_embd": "Q6_K"},
    "qwen2": {"attn_k": "Q5_1", "attn_": "Q4_1", "ffn_down": "Q8_0", "ffn_": "Q5_0", "": "Q8_0"},
    "gemma3": {"attn_": "Q4_0", "ffn_down": "IQ4_XS", "ffn_gate": "IQ4_NL", "ffn_up": "Q4_0", "": "Q4_K"},
    "phi3": {"attn_": "Q3_K", "ffn_": "Q2_K", "output": "Q6_K", "token_embd": "Q2_K"},
    "gpt2": {"attn_": "Q4_1", "ffn_": "Q5_1", "token_embd": "Q4_1"},
    "qwen3moe": {"exps": "Q4_0", "gate_inp": "Q8_0", "attn_": "Q4_1", "": "Q6_K"},
    # Heads of values are in another order in the file, and a super-block of the last matrix has those of two.
    "qwen35": {"attn_": "Q4_0", "ssm_out": "Q4_K", "ssm_alpha": "Q8_0", "ssm_beta": "Q8_0", "": "Q6_K"},
}
RULES = {
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 128,
    "layer_types": ["linear_attention", "full_attention"],
}
CHANGES = {
    "qwen3moe": {"head_dim": 64, "moe_intermediate_size": 256},
    "qwen35": {"head_dim": 64, "linear_key_head_dim": 32, **RULES},
    "gemma3": {"head_dim": 64, "num_hidden_layers": 2},
    "llama": {"head_dim": 64, "tie_word_embeddings": True},
}


def write(folder, name, mixture):
    """A file with random blocks, and the same with what gguf's own decoder makes of them."""
    model = make_model(name, **(GPT2 if name == "gpt2" else {**SIZES, **CHANGES.get(name, {})}))
    names = [tensor.name for tensor in gguf.GGUFReader(write_gguf(folder / "plain.gguf", name, model)).tensors]
    shapes = {tensor.name: tensor.shape for tensor in gguf.GGUFReader(folder / "plain.gguf").tensors}
    blocks = {}
    for tensor in names:
        kind = next((kind for part, kind in mixture.items() if part in tensor), None)
        # A convolution's matrix has rows that are shorter than a block.
        columns, *outer = (int(size) for size in shapes[tensor])
        if kind is not None and outer and columns >= 256 and "position" not in tensor:
            flat = random_tensor(Format[kind], math.prod(outer), columns)
            blocks[tensor] = Tensor(tensor, flat.format, (*outer[::-1], columns), flat.data.reshape(*outer[::-1], -1))
    numbers = {tensor: gguf.dequantize(item.data, item.format) for tensor, item in blocks.items()}
    write_gguf(folder / "plain.gguf", name, model, tensors=numbers)
    return write_gguf(folder / "model.gguf", name, model, tensors=blocks)


def reference(path, ids):
    model = loading.load_gguf_model(path, loading.read_gguf_config(path), AutoModelForCausalLM).model
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].numpy()


@pytest.mark.parametrize("name", MIXTURES)
def test_a_bundle_has_the_numbers_of_the_file(name, tmp_path):
    path = write(tmp_path, name, MIXTURES[name])
    # With float32 activations nothing is rounded that the file does not round.
    export(str(path), tmp_path / "bundle", ExportOptions(context_length=64, accuracy_level=1))
    model = triform.load(tmp_path / "bundle")
    ids = model.token_ids(TEXT) if hasattr(model, "token_ids") else model._prompts.text_ids(TEXT)
    expected = reference(tmp_path / "plain.gguf", ids)
    np.testing.assert_allclose(model.logits(TEXT), expected, atol=2e-4 * np.abs(expected).max())
    stored = model.manifest.graphs["decoder"].quantization
    assert stored.scheme == "keep"
    assert set(stored.formats) == set(MIXTURES[name].values())


def test_what_is_not_in_blocks_gets_eight_bits(tmp_path):
    path = write(tmp_path, "qwen2", {"ffn_": "Q4_0"})
    report = export(str(path), tmp_path / "bundle", ExportOptions(context_length=64))
    stored = triform.load(tmp_path / "bundle").manifest.graphs["decoder"].quantization
    # In two layers queries, keys and values are one product, and so are gates and what they open; outputs, the head and
    # the table are F32 too.
    assert stored.formats == {"Q4_0": 4, "int8": 6}
    assert report.parity.quantized.mean_kl < 0.1


def test_floats_are_let_go_of_once_the_graph_has_their_blocks(tmp_path, monkeypatch):
    # No other test has matrices of these shapes.
    shapes = {(768, 256), (256, 768), (1536, 256)}
    monkeypatch.setitem(SIZES, "intermediate_size", 768)
    path, found = write(tmp_path, "llama", {"": "Q4_0"}), []
    verify_rows = blocks.verify_rows

    def verify(*arguments):
        gc.collect()
        tensors = [item for item in gc.get_objects() if type(item) in (torch.Tensor, torch.nn.Parameter)]
        found.append([item.shape for item in tensors if item.device.type == "cpu" and tuple(item.shape) in shapes])
        verify_rows(*arguments)

    monkeypatch.setattr(blocks, "verify_rows", verify)
    export(str(path), tmp_path / "bundle", ExportOptions(context_length=64))
    assert found == [[]]


def test_wrong_blocks_are_noticed(tmp_path, monkeypatch):
    path = write(tmp_path, "llama", {"": "Q4_0"})

    def one_more(placement):
        matrix = blocks_of(placement)
        numbers = matrix.numbers.copy()
        numbers[5, 3, 7] ^= 8
        return dataclasses.replace(matrix, numbers=numbers)

    monkeypatch.setattr(stored_blocks, "blocks_of", one_more)
    with pytest.raises(ExportError, match="logits with the blocks of the file differ by"):
        export(str(path), tmp_path / "bundle", ExportOptions(context_length=64))
    assert not (tmp_path / "bundle").exists()


def test_the_file_is_not_much_larger_in_a_bundle(tmp_path):
    path = write(tmp_path, "llama", {"": "Q5_K"})
    export(str(path), tmp_path / "bundle", ExportOptions(context_length=64))
    tensors = sum(tensor.n_bytes for tensor in gguf.GGUFReader(path).tensors)
    # A page for each constant, of which there are a few for each matrix; and the rotary tables.
    constants = 8 * 4096 * 2 * 5
    assert (tmp_path / "bundle" / "decoder.onnx.data").stat().st_size < tensors * 1.05 + constants


@pytest.mark.parametrize("width", [1, 2, 4])
def test_packing_apart(width):
    numbers = (np.arange(48).reshape(2, 24) * 37 % 2**width).astype(np.uint8)
    packed = pack_apart(numbers, width)
    assert packed.shape == (6 * width,)
    expected = [(byte >> place) % 2**width for place in range(0, 8, width) for byte in packed.tolist()]
    assert numbers.reshape(-1).tolist() == expected


def test_options_that_do_not_go_with_a_source(checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"keep is for GGUF files and checkpoints whose.*which tiny-llama is not"):
        plan(str(checkpoint), ExportOptions(quantize="keep"))
    with pytest.raises(InputError, match="`block_size` does not go with `quantize` keep"):
        ExportOptions(quantize="keep", block_size=32)
    path = write(tmp_path, "llama", {"ffn_": "Q4_0"})
    assert ("weights", "the blocks of the checkpoint") in plan(str(path), ExportOptions())
    assert dict(plan(str(path), ExportOptions(quantize="int8")))["weights"].startswith("8 bit")
    with pytest.raises(InputError, match="`block_size` needs `quantize` int4 or int8 here: model keeps its own blocks"):
        plan(str(path), ExportOptions(block_size=64))
    with pytest.raises(InputError, match="keep is for GGUF files and checkpoints"):
        plan(str(tmp_path / "plain.gguf"), ExportOptions(quantize="keep"))
