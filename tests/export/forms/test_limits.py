"""How long texts and answers may be, and what a plan says of them: by the numbers that configs give."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers

from triform.export.checkpoint.source import Source
from triform.export.forms import audio, decoder, encoder, encoder_decoder, image, static
from triform.export.forms.decoder import context_limit
from triform.export.forms.encoder_decoder import answer_limit, source_limit
from triform.export.options import ExportOptions
from triform.runtime.errors import ExportError, InputError

LARGEST = 2**31 - 1
ORIGIN = Source("m", Path("m"), Path("m"), Path("m"), task="text-classification")


def llama(limit, **others):
    return transformers.LlamaConfig(max_position_embeddings=limit, **others)


@pytest.mark.parametrize(
    ("config", "asked", "limit"),
    [
        (llama(64), None, 64),
        (llama(64), 63, 63),
        (llama(64), 64, 64),
        (llama(64), 32, 32),
        (llama(32), None, 32),
        (transformers.MptConfig(max_seq_len=48), None, 48),
        (llama(1), None, "reads 1 tokens at most, too few"),
        (llama(31), None, "reads 31 tokens at most, too few to compare the exported graph with it; 32 are needed"),
        (llama(64), 65, "65 is more than the model's own limit of 64"),
        # No graph can count so far.
        (llama(LARGEST), None, LARGEST),
        (llama(LARGEST + 1), None, "llama sets no limit to its context"),
        (llama(LARGEST + 1), LARGEST, LARGEST),
        (llama(64), LARGEST + 1, f"must be at most {LARGEST}, not {LARGEST + 1}"),
        # Of XLNet, whose limit is -1.
        (llama(-1), None, "llama sets no limit to its context"),
        (llama(0), 40, 40),
        (llama(-1), 40, 40),
        (transformers.MambaConfig(), None, "mamba sets no limit to its context"),
    ],
)
def test_the_most_tokens_of_a_text(config, asked, limit):
    if isinstance(limit, int):
        assert context_limit(config, asked) == limit
        return
    with pytest.raises((ExportError, InputError)) as caught:
        context_limit(config, asked)
    assert limit in str(caught.value)


def value_of(rows, name):
    [value] = [value for key, value in rows if key == name]
    return value


@pytest.mark.parametrize(("asked", "limit"), [(None, 40), (33, 33), (40, 40), (41, 41), (96, 96)])
def test_longrope_ends_where_its_frequencies_change_unless_more_is_asked_for(asked, limit):
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 40, "rope_theta": 1e4,
            "short_factor": [1.0] * 16, "long_factor": [2.0] * 16}  # fmt: skip
    config = llama(96, rope_parameters=rope, hidden_size=128, num_attention_heads=4)
    rows = decoder.plan(ORIGIN, config, ExportOptions(quantize="none", context_length=asked))
    assert value_of(rows, "context length") == str(limit)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"quantize": "none"}, "float32"),
        ({"quantize": "int8"}, "8 bit, blocks of 128 (32 for attention inputs, head and embedding)"),
        ({"quantize": "int4"}, "4 bit, blocks of 64 (32 for attention inputs, head and embedding)"),
        ({"quantize": "int4", "block_size": 32}, "4 bit, blocks of 32"),
        ({"quantize": "int8", "block_size": 16}, "8 bit, blocks of 16"),
        ({"quantize": "int8", "block_size": 64}, "8 bit, blocks of 64 (32 for attention inputs, head and embedding)"),
        ({"quantize": "mixed", "target_bits": 4.5}, "3 to 8 bit, blocks of 16 to 128, matrix by matrix"),
    ],
)
def test_the_plan_of_a_decoder(options, weights):
    rows = decoder.plan(ORIGIN, llama(64, num_hidden_layers=3, hidden_size=64), ExportOptions(**options))
    assert value_of(rows, "weights") == weights
    assert [value_of(rows, name) for name in ("form", "layers", "hidden size", "context length")] == [
        "decoder", "3", "64", "64",
    ]  # fmt: skip


def test_there_must_be_blocks_to_keep():
    with pytest.raises(InputError, match="whose weights are quantized in blocks, which m is not"):
        decoder.plan(ORIGIN, llama(64), ExportOptions(quantize="keep"))


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({"quantize": "none"}, "float32"),
        ({"quantize": "int8"}, "int8"),
        ({"quantize": "int8", "target": "gpu"}, "float16"),
        ({"quantize": "int8", "target": "cpu,gpu", "dtype": "bfloat16"}, "int8; bfloat16 for GPUs"),
    ],
)
def test_the_plan_of_an_encoder(options, weights):
    """Of one that reads images the sizes of the part that does."""
    text = transformers.BertConfig(num_hidden_layers=2, hidden_size=12, vocab_size=30)
    clip = transformers.CLIPConfig(vision_config={"num_hidden_layers": 5, "hidden_size": 24})
    sound = transformers.ASTConfig(num_hidden_layers=4, hidden_size=16)
    made = ExportOptions(**options)
    for form, config, sizes in ((encoder, text, ["2", "12"]), (image, clip, ["5", "24"]), (audio, sound, ["4", "16"])):
        rows = form.plan(ORIGIN, config, made)
        assert [value_of(rows, name) for name in ("layers", "hidden size", "weights")] == [*sizes, weights]
        assert value_of(rows, "task") == "text-classification"
    assert value_of(encoder.plan(ORIGIN, text, made), "vocabulary") == "30"


@pytest.mark.parametrize(
    ("config", "asked", "limit"),
    [
        (transformers.BartConfig(max_position_embeddings=50), None, 50),
        (transformers.BartConfig(max_position_embeddings=50), 50, 50),
        (transformers.BartConfig(max_position_embeddings=50), 51, "51 is more than the model's own limit of 50"),
        (transformers.WhisperConfig(max_target_positions=44), None, 44),
        (transformers.LEDConfig(max_encoder_position_embeddings=96, max_decoder_position_embeddings=40), None, 40),
        # The first position is padding's, and the last one is ahead of the last token.
        (transformers.ProphetNetConfig(max_position_embeddings=64), None, 62),
        (transformers.ProphetNetConfig(max_position_embeddings=64), 63, "63 is more than the model's own limit of 62"),
        # Relative positions.
        (transformers.T5Config(), None, 1024),
        (transformers.T5Config(), 5000, 5000),
    ],
)
def test_the_most_tokens_of_an_answer(config, asked, limit):
    options = ExportOptions(context_length=asked)
    if isinstance(limit, int):
        assert answer_limit(config, options) == limit
        plan = encoder_decoder.plan(ORIGIN, config, options)
        assert value_of(plan, "longest answer") == f"{limit} tokens"
        return
    with pytest.raises(InputError, match=limit):
        answer_limit(config, options)


def checkpoint_of(config, tokenizer_limit):
    return SimpleNamespace(
        model=SimpleNamespace(config=config), tokenizer=SimpleNamespace(model_max_length=tokenizer_limit)
    )


@pytest.mark.parametrize(
    ("config", "of_tokenizer", "limit"),
    [
        (transformers.BartConfig(max_position_embeddings=50), 40, 40),
        (transformers.BartConfig(max_position_embeddings=50), 60, 50),
        (transformers.BartConfig(max_position_embeddings=50), int(1e30), 50),
        (transformers.LEDConfig(max_encoder_position_embeddings=90, max_decoder_position_embeddings=30), 100, 90),
        (transformers.T5Config(), 512, 512),
        (transformers.T5Config(), int(1e30), None),
        (transformers.T5Config(), 10**9, None),
        (transformers.T5Config(), 10**9 - 1, 10**9 - 1),
        # Five blocks and two for each random one, of 16 tokens: longer texts are not attended to as a whole.
        (transformers.BigBirdPegasusConfig(num_random_blocks=3, block_size=16), 4096, 176),
        (transformers.BigBirdPegasusConfig(attention_type="original_full", max_position_embeddings=99), 4096, 99),
    ],
)
def test_the_most_tokens_of_a_source(config, of_tokenizer, limit):
    assert source_limit(checkpoint_of(config, of_tokenizer)) == limit


def test_rows_of_tokens_for_a_table_of_vectors():
    """Forty-eight of 2 to 79 tokens, any of the table's; the first five are compared with PyTorch."""
    table = SimpleNamespace(vectors=torch.zeros(3, 5))
    parity, evaluation = static.static_samples(table)
    assert (len(parity), len(evaluation)) == (5, 48) and parity == evaluation[:5]
    lengths = [len(sample["input_ids"]) for sample in evaluation]
    assert min(lengths) >= 2 and max(lengths) <= 79 and len(set(lengths)) > 20
    assert set(np.concatenate([sample["input_ids"] for sample in evaluation])) == {0, 1, 2}
    for sample in evaluation:
        assert sample["attention_mask"].tolist() == [1] * len(sample["input_ids"])
