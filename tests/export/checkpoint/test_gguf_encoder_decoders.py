"""Files of T5 and its kin, written as llama.cpp's converter writes them."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

import triform
from tests.checkpoints.gguf_files import CONTROL, NORMAL
from triform.export.checkpoint.gguf import loading
from triform.export.options import ExportOptions
from triform.export.pipeline import export

PIECES = ["▁", *"abcdefghijklmnopqrstuvwxyz", ".", ",", "▁the", "▁sh", "ip"]
TOKENS = ["<pad>", "</s>", "<unk>", *PIECES]
SIZES = {
    "vocab_size": len(TOKENS), "d_model": 48, "d_kv": 16, "d_ff": 80, "num_layers": 3, "num_decoder_layers": 2,
    "num_heads": 5, "relative_attention_num_buckets": 24, "layer_norm_epsilon": 1e-3, "eos_token_id": 1,
    "pad_token_id": 0, "decoder_start_token_id": 0,
}  # fmt: skip
KEYS = {
    "context_length": 512, "embedding_length": 48, "feed_forward_length": 80, "block_count": 3,
    "decoder_block_count": 2, "attention.head_count": 5, "attention.key_length": 16, "attention.value_length": 16,
    "attention.relative_buckets_count": 24, "decoder_start_token_id": 0,
}  # fmt: skip
UNUSED = {"dec.blk.0.cross_attn_rel_b.weight": np.ones((24, 5), np.float32)}


def made(kind, gated, head):
    """A model with a head of its own, or without one, as the first version of T5."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind, **SIZES, feed_forward_proj="gated-gelu" if gated else "relu", tie_word_embeddings=not head
    )
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    if head:
        model.lm_head.weight = torch.nn.Parameter(torch.empty(len(TOKENS), 48))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * (0.3 if parameter.ndim > 1 else 0.5))
    return model


def written(path, model, head, **more):
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.T5, 3)
    writer = gguf.GGUFWriter(str(path), "t5")
    for key, value in KEYS.items():
        writer.add_uint32(f"t5.{key}", value)
    writer.add_layer_norm_eps(1e-3)
    writer.add_layer_norm_rms_eps(1e-3)
    writer.add_tokenizer_model("t5")
    writer.add_token_list(TOKENS)
    writer.add_token_scores([0.0] * 3 + [-3.0 - index % 7 for index in range(len(PIECES))])
    writer.add_token_types([CONTROL, CONTROL, 2, *[NORMAL] * len(PIECES)])
    writer.add_add_space_prefix(True)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(2)
    shared = set(model.all_tied_weights_keys) - ({"lm_head.weight"} if head else set())
    for name, parameter in model.state_dict().items():
        if name not in shared:
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), parameter.numpy())
    for name, array in more.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 23)[None], decoder_input_ids=torch.arange(9)[None]).logits


@pytest.mark.parametrize(
    ("kind", "gated", "head", "more"),
    [("t5", False, False, UNUSED), ("t5", True, True, {}), ("umt5", True, True, {})],
)
def test_a_model_comes_back_as_it_was(kind, gated, head, more, tmp_path):
    model = made(kind, gated, head)
    path = written(tmp_path / "model.gguf", model, head, **more)
    found = loading.load_gguf_model(path, loading.read_gguf_config(path), AutoModelForSeq2SeqLM)
    assert type(found.model) is type(model)
    assert not found.missing
    torch.testing.assert_close(logits(found.model), logits(model), rtol=0, atol=0)


def test_gates_without_a_head_are_of_the_later_version(tmp_path):
    """Which does not scale what the head reads, though transformers writes its files without a head of its own."""
    model = made("t5", True, False)
    model.config.scale_decoder_outputs = False
    path = written(tmp_path / "model.gguf", model, False)
    found = loading.load_gguf_model(path, loading.read_gguf_config(path), AutoModelForSeq2SeqLM)
    torch.testing.assert_close(logits(found.model), logits(model), rtol=0, atol=0)


def test_a_bundle_answers_as_transformers_does(tmp_path):
    model = made("t5", True, True)
    path = written(tmp_path / "model.gguf", model, True)
    export(str(path), tmp_path / "bundle", ExportOptions(quantize="none"))
    ids = [TOKENS.index(piece) for piece in ("▁the", "▁sh", "ip", "▁", *"sailed", "</s>")]
    expected = model.generate(input_ids=torch.tensor([ids]), max_new_tokens=7, do_sample=False)[0]
    options = triform.GenerationOptions(max_new_tokens=7)
    found = triform.load(tmp_path / "bundle").generate("the ship sailed", options)
    assert list(found.token_ids) == [token for token in expected[1:].tolist() if token != 1]
