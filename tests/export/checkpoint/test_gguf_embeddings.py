"""Files of models that give vectors, whatever the architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Format
from transformers import AutoModel

import triform
from tests.checkpoints.gguf_files import byte_vocabulary, make_model, write_gguf
from triform.export.checkpoint.gguf import loading
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.errors import ExportError

TEXTS = ["a ship", "The storm had passed before dawn.", "x"]


def tokens(text):
    """Of a vocabulary of letters, with the beginning and the end that a file asks for."""
    letters = {token: index for index, token in enumerate(byte_vocabulary()["tokens"])}
    ids, rest = [], text.replace(" ", "Ġ")
    while rest:
        piece = "Ġt" if rest.startswith("Ġt") else rest[0]
        ids.append(letters[piece])
        rest = rest[len(piece) :]
    return ids


def states(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).last_hidden_state[0]


def vocabulary(**changes):
    keys = byte_vocabulary(add_bos_token=False, add_eos_token=True, **changes)
    return {f"tokenizer.ggml.{key}": value for key, value in keys.items()}


def assert_vectors(bundle, expected):
    found = triform.load(bundle).embed(TEXTS)
    expected = np.stack(expected)
    cosines = (found * expected).sum(-1) / np.linalg.norm(found, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert cosines.min() > 1 - 1e-6


def test_a_decoder_with_a_pooling_gives_vectors(tmp_path):
    """As Qwen3-Embedding, whose vector is the state of the end token; the file may have a head that is not used."""
    model = make_model("qwen3", tie_word_embeddings=False)
    keys = {"qwen3.pooling_type": 3}
    path = write_gguf(tmp_path / "model.gguf", "qwen3", model, keys=keys, vocabulary=vocabulary())
    assert loading.read_gguf_config(path).architectures == ["Qwen3Model"]
    export(str(path), tmp_path / "bundle", ExportOptions(quantize="none"))
    end = byte_vocabulary()["eos_token_id"]
    assert_vectors(tmp_path / "bundle", [states(model.model, [*tokens(text), end])[-1].numpy() for text in TEXTS])


def test_layers_behind_the_pooling(tmp_path):
    model = make_model("gemma-embedding")
    chance = np.random.default_rng(0)
    dense = {
        "dense_2.weight": chance.normal(size=(96, 48)).astype(np.float32),
        "dense_3.weight": chance.normal(size=(32, 96)).astype(np.float32),
    }
    keys = {
        f"gemma-embedding.dense_{name}": size
        for name, size in (("2_feat_in", 48), ("2_feat_out", 96), ("3_feat_in", 96), ("3_feat_out", 32))
    }
    path = write_gguf(
        tmp_path / "model.gguf", "gemma-embedding", model, keys=keys, tensors=dense, vocabulary=vocabulary()
    )
    export(str(path), tmp_path / "bundle", ExportOptions(quantize="none"))
    end = byte_vocabulary()["eos_token_id"]
    pooled = [states(model, [*tokens(text), end]).mean(0).numpy() for text in TEXTS]
    assert_vectors(
        tmp_path / "bundle", [dense["dense_3.weight"] @ (dense["dense_2.weight"] @ vector) for vector in pooled]
    )


def test_layers_behind_the_pooling_in_blocks(tmp_path):
    model = make_model("gemma-embedding")
    weight = np.random.default_rng(0).normal(size=(32, 96)).astype(np.float32)
    path = write_gguf(
        tmp_path / "model.gguf", "gemma-embedding", model, tensors={"dense_2.weight": weight},
        format_of={"dense_2.weight": Format.Q8_0},
    )  # fmt: skip
    [linear] = loading.read_gguf_dense(path)
    # Half a step of 8 bits in blocks of 32, and what rounding the step to float16 adds to 127 of them: 127 / 2**11.
    bound = np.abs(weight.reshape(32, 3, 32)).max(-1, keepdims=True) / 127 * 0.57
    difference = linear.weight.detach().numpy().reshape(32, 3, 32) - weight.reshape(32, 3, 32)
    assert (np.abs(difference) <= bound).all()
    assert np.abs(difference).max() > 0


def test_a_decoder_that_ranks_is_refused(tmp_path):
    path = write_gguf(tmp_path / "a.gguf", "qwen3", make_model("qwen3"), keys={"qwen3.pooling_type": 4})
    with pytest.raises(ExportError, match=r"a\.gguf has qwen3\.pooling_type = 4, which is not supported"):
        loading.read_gguf_config(path)


def test_windows_on_both_sides(tmp_path):
    """The file's window of 6 reaches 3 tokens back and 3 ahead, as in llama.cpp."""
    model = make_model("gemma-embedding")
    path = write_gguf(tmp_path / "model.gguf", "gemma-embedding", model)
    read = loading.load_gguf_model(path, loading.read_gguf_config(path), AutoModel).model
    local = [index for index, kind in enumerate(read.config.layer_types) if kind == "sliding_attention"]
    read.layers = torch.nn.ModuleList([read.layers[local[0]]])
    read.config.num_hidden_layers = 1
    ids = list(range(3, 23))
    changed = [*ids[:10], 40, *ids[11:]]
    moved = (states(read, ids) - states(read, changed)).abs().amax(-1) > 1e-4
    assert moved.nonzero().flatten().tolist() == list(range(7, 14))
