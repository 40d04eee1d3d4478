"""No weight is stored twice: what a quantized bundle takes follows from its number of parameters.

The limit is arithmetic: a parameter takes `bits` / 8 bytes, and of each block of 32 parameters the scale takes four
bytes and the zero point another `bits` / 8. Norms and biases, which stay in float32, and positions in float16
are within 5 % of that.
"""

from __future__ import annotations

import json

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertTokenizerFast,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.checkpoints.ctc import save_ctc_checkpoint
from tests.checkpoints.decoders import byte_level_tokenizer, llama_folder
from tests.checkpoints.encoders import bert_folder, word_piece_tokenizer
from tests.checkpoints.images import vision_folder
from triform.export.options import ExportOptions
from triform.export.pipeline import export

WORDS = 8192
# Sizes that whole blocks of 128 fill.
WHOLE_BLOCKS = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 8}


def albert(folder):
    """All layers have the same weights, and the head has the table of the embeddings."""
    torch.manual_seed(0)
    config = AlbertConfig(
        vocab_size=WORDS, embedding_size=64, hidden_size=192, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=768, max_position_embeddings=96,
    )  # fmt: skip
    AlbertForMaskedLM(config).save_pretrained(folder)
    BertTokenizerFast(tokenizer_object=word_piece_tokenizer()).save_pretrained(folder)


def bert(folder):
    bert_folder(folder, "BertForMaskedLM", vocab_size=WORDS, **WHOLE_BLOCKS)


def bert_untied(folder):
    bert_folder(folder, "BertForMaskedLM", vocab_size=WORDS, **WHOLE_BLOCKS, tie_word_embeddings=False)


def classifier(folder):
    bert_folder(folder, "BertForSequenceClassification", vocab_size=WORDS, **WHOLE_BLOCKS, num_labels=3)


def t5(folder):
    """Encoder and decoder look up the same table, and so does the head."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=WORDS, d_model=64, d_kv=16, d_ff=96, num_layers=1, num_heads=4, decoder_start_token_id=0
    )
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(), eos_token="<|end|>", pad_token="<pad>", model_max_length=90
    )
    tokenizer.save_pretrained(folder)


def llama(folder):
    llama_folder(folder, vocab_size=WORDS, **WHOLE_BLOCKS)


def llama_untied(folder):
    llama_folder(folder, vocab_size=WORDS, **WHOLE_BLOCKS, tie_word_embeddings=False)


def llama_of_half_blocks(folder):
    """288 and 160 columns are three and two blocks of 128, the last of them filled by a quarter."""
    llama_folder(folder, vocab_size=2048, hidden_size=288, intermediate_size=160, head_dim=24)


def waveforms(folder):
    """Two of five parameters are in convolutions, as one of ten of wav2vec2's smallest published model is."""
    folder.mkdir()
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "conv_dim": [64, 128]}
    save_ctc_checkpoint(folder, "wav2vec2", "layer", **sizes)


def images(folder):
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "patch_size": (12, 20)}
    vision_folder(folder, "vit", "ViTForImageClassification", **sizes)


def limit(parameters, bits):
    return 1.05 * parameters * (bits / 8 + (4 + bits / 8) / 32)


def stored(bundle):
    return sum(path.stat().st_size for path in bundle.glob("*.data"))


@pytest.mark.parametrize(
    ("make", "bits"),
    [
        (albert, 8),
        (bert, 8),
        (bert_untied, 8),
        (classifier, 8),
        (t5, 8),
        (llama, 8),
        (llama_untied, 4),
        (llama_of_half_blocks, 8),
        (waveforms, 8),
        (images, 8),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_bundle_is_no_larger_than_its_parameters(make, bits, tmp_path):
    make(tmp_path / "checkpoint")
    export(str(tmp_path / "checkpoint"), tmp_path / "bundle", ExportOptions(quantize=f"int{bits}"))
    parameters = json.loads((tmp_path / "bundle" / "manifest.json").read_text())["parameters"]
    assert stored(tmp_path / "bundle") <= limit(parameters, bits)


def test_real_ones_are_no_larger_than_their_parameters(real_bundle, minilm_bundle):
    assert stored(real_bundle) <= limit(134_515_008, 4)
    assert stored(minilm_bundle) <= limit(22_713_216, 8)


@pytest.mark.parametrize("goal", [{"quantize": "int4"}, {"target_bits": 5.0}])
def test_tables_for_many_positions_are_computed(goal, tmp_path):
    """Cosines and sines of 131,072 positions, eight of each, would be 8 MiB: more than the model."""
    folder = llama_folder(tmp_path / "model", max_position_embeddings=2**17, head_dim=16)
    export(str(folder), tmp_path / "bundle", ExportOptions(**goal))
    assert sum(file.stat().st_size for file in (tmp_path / "bundle").iterdir()) < 2**20
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["max_length"] == 2**17
