"""gpt-oss in MXFP4: what a folder holds against the numbers that the OCP specification gives for its bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from triform.export.checkpoint.loading import load_model, read_config
from triform.export.checkpoint.resolve import find_checkpoint
from triform.runtime.errors import ExportError

# The sixteen floats of E2M1, by their bits.
FLOATS = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
SIZES = {
    "vocab_size": 50, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 24, "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": 16,
}  # fmt: skip
DOWN = "model.layers.1.mlp.experts.down_proj"
BLOCKS, SCALES = f"{DOWN}_blocks", f"{DOWN}_scales"


def oss_folder(folder: Path, quantized: bool = True, **settings):
    """A folder of blocks, and the numbers of its state dict; `settings` go into the config."""
    config = AutoConfig.for_model("gpt_oss", **SIZES, **settings)
    random = torch.Generator().manual_seed(3)
    tensors, expected = {}, {}
    for name, value in AutoModelForCausalLM.from_config(config).state_dict().items():
        if name.endswith((".gate_up_proj", ".down_proj")):
            experts, width, rows = value.shape
            blocks = torch.randint(0, 256, (experts, rows, width // 32, 16), generator=random, dtype=torch.uint8)
            scales = torch.randint(118, 140, (experts, rows, width // 32), generator=random, dtype=torch.uint8)
            tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
            # Of the two in a byte the lower bits come first; a scale is a power of two.
            numbers = FLOATS[torch.stack((blocks & 15, blocks >> 4), -1).flatten(-2).long()]
            numbers = numbers * 2.0 ** (scales.float() - 127)[..., None]
            expected[name] = numbers.flatten(-2).transpose(1, 2)
        else:
            expected[name] = torch.randn(value.shape, generator=random).to(torch.bfloat16).float()
            tensors[name] = expected[name].to(torch.bfloat16)
    if settings.get("tie_word_embeddings"):
        del tensors["lm_head.weight"]
        expected["lm_head.weight"] = expected["model.embed_tokens.weight"]
    folder.mkdir()
    written = config.to_dict() | {"architectures": ["GptOssForCausalLM"]}
    written |= {"quantization_config": {"quant_method": "mxfp4"}} if quantized else {}
    (folder / "config.json").write_text(json.dumps(written))
    save(folder, tensors)
    return folder, tensors, expected


def save(folder, tensors):
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"}
    )


def loaded(folder, as_stored=False):
    source = find_checkpoint(str(folder))
    return load_model(source, read_config(source), AutoModelForCausalLM, as_stored=as_stored).model


@pytest.mark.parametrize("tied", [False, True])
def test_blocks_are_the_numbers_that_they_stand_for(tied, tmp_path):
    folder, _, expected = oss_folder(tmp_path / "oss", tie_word_embeddings=tied)
    found = loaded(folder).state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], value), name


def test_bytes_of_another_name_are_the_same_bytes(tmp_path):
    """Scales have a type of their own in PyTorch, whose numbers transformers would take for exponents."""
    folder, tensors, expected = oss_folder(tmp_path / "oss")
    for scales, blocks in ((torch.float8_e8m0fnu, torch.uint8), (torch.int8, torch.int8)):
        save(folder, tensors | {SCALES: tensors[SCALES].view(scales), BLOCKS: tensors[BLOCKS].view(blocks)})
        assert torch.equal(loaded(folder).state_dict()[DOWN], expected[DOWN])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({BLOCKS: None}, rf"what {DOWN} is made of does not go together"),
        ({SCALES: None}, rf"what {DOWN} is made of does not go together"),
        ({BLOCKS: None, SCALES: None}, rf"lacks 1 weights its config asks for, such as {DOWN}"),
        ({DOWN: torch.zeros(5, 96, 64)}, rf"{DOWN} is stored twice, in blocks and by itself"),
        ({SCALES: torch.zeros(5, 64, 3)}, rf"{SCALES} is stored as float32, not as bytes"),
        ({SCALES: torch.zeros(5, 63, 3, dtype=torch.uint8)}, rf"what {DOWN} is made of does not go together"),
        # The byte that stands for NaN.
        ({SCALES: torch.full((5, 64, 3), 255, dtype=torch.uint8)}, rf"numbers in its weight {DOWN} that are NaN"),
    ],
)
def test_what_does_not_go_together_is_refused(change, message, tmp_path):
    folder, tensors, _ = oss_folder(tmp_path / "oss")
    save(folder, {name: value for name, value in (tensors | change).items() if value is not None})
    with pytest.raises(ExportError, match=message):
        loaded(folder)


def test_blocks_that_the_config_does_not_tell_of_are_refused(tmp_path):
    folder, *_ = oss_folder(tmp_path / "oss", quantized=False)
    with pytest.raises(ExportError, match=r"has weights that a GptOssForCausalLM does not read"):
        loaded(folder)
