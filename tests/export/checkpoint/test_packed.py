"""Matrices that other tools packed are read as the numbers that these tools' documents say they stand for.

The packers below place one number after the other. Files that AutoAWQ 0.2.7, AutoGPTQ 0.7.1, bitsandbytes 0.50 and
compressed-tensors 0.20 packed were compared by hand, and were equal.
"""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel

from tests.checkpoints.decoders import llama_folder
from tests.checkpoints.packed import AWQ, GROUPS, ROWS, WIDTH, awq, awq_folder, in_blocks, placed
from triform.export.checkpoint.files.weights import load_tensors, tensor_names
from triform.export.checkpoint.loading import load_model, read_config
from triform.export.checkpoint.resolve import find_checkpoint
from triform.runtime.errors import ExportError


def gptq(bits, less, act_order=False):
    numbers, zeros, scales, matrix = in_blocks(bits)
    group = np.repeat(np.arange(GROUPS), WIDTH // GROUPS)
    if act_order:
        order = np.random.default_rng(1).permutation(WIDTH)
        numbers, group, matrix = numbers[:, order], group[order], matrix[:, order]
    parts = {
        "qweight": placed(numbers, bits).T.contiguous(),
        "qzeros": placed((zeros.T - less) % 2**bits, bits),
        "scales": scales.T.contiguous(),
        "g_idx": torch.from_numpy(group.astype(np.int32)),
    }
    return parts, matrix.half()


def placed_by_three_bits(numbers):
    """32 numbers in three integers, as AutoGPTQ's loop places them: two of the numbers are in two integers each."""
    words = np.zeros((len(numbers), numbers.shape[1] * 3 // 32), np.uint64)
    for word, column in zip(range(0, words.shape[1], 3), range(0, numbers.shape[1], 32), strict=True):
        values = numbers[:, column : column + 32].astype(np.uint64)
        for place in range(10):
            words[:, word] |= values[:, place] << np.uint64(3 * place)
            words[:, word + 1] |= values[:, 11 + place] << np.uint64(3 * place + 1)
            words[:, word + 2] |= values[:, 22 + place] << np.uint64(3 * place + 2)
        words[:, word] |= (values[:, 10] & 3) << np.uint64(30)
        words[:, word + 1] |= values[:, 10] >> np.uint64(2) | (values[:, 21] & 1) << np.uint64(31)
        words[:, word + 2] |= values[:, 21] >> np.uint64(1)
    return torch.from_numpy(words.astype(np.uint32).view(np.int32))


def gptq_of_three_bits():
    numbers, zeros, scales, matrix = in_blocks(3, rows=64)
    parts = {
        "qweight": placed_by_three_bits(numbers).T.contiguous(),
        "qzeros": placed_by_three_bits(zeros.T - 1),
        "scales": scales.T.contiguous(),
    }
    return parts, matrix.half()


def compressed(bits, group=None):
    numbers, zeros, scales, matrix = in_blocks(bits)
    order = np.arange(WIDTH)
    if group == "other":
        order = np.random.default_rng(6).permutation(WIDTH)
    numbers, matrix = numbers[:, order], matrix[:, order]
    # Some versions write -1 where columns have their own order.
    places = np.full(WIDTH, -1) if group == "none" else order // (WIDTH // GROUPS)
    parts = {} if group is None else {"weight_g_idx": torch.from_numpy(places.astype(np.int32))}
    parts |= {
        "weight_packed": placed(numbers, bits),
        "weight_zero_point": placed(zeros.T, bits).T.contiguous(),
        "weight_scale": scales,
        "weight_shape": torch.tensor([ROWS, WIDTH]),
    }
    return parts, matrix.half()


def scaled(kind, shape, **others):
    """Numbers of 8 bits, and a scale of all, of each row, or of blocks of 24 rows and 32 columns."""
    random = torch.Generator().manual_seed(2)
    weight = (torch.rand(ROWS, WIDTH, generator=random) * 200 - 100).to(kind)
    scale = torch.rand(shape, generator=random).to(torch.bfloat16)
    factors = torch.empty(ROWS, WIDTH)
    for row in range(ROWS):
        for column in range(WIDTH):
            place = (row * scale.shape[0] // ROWS, column * scale.shape[1] // WIDTH) if len(shape) == 2 else 0
            factors[row, column] = scale[place]
    return {"weight": weight, "weight_scale": scale, **others}, (weight.float() * factors).to(torch.bfloat16)


def bits_of_a_table(nested):
    """4-bit numbers that stand for floats, in blocks of 64, as bitsandbytes stores them."""
    random = np.random.default_rng(3)
    table = np.sort(random.standard_normal(16)).astype(np.float32)
    numbers, blocks = random.integers(0, 16, ROWS * WIDTH), ROWS * WIDTH // 64
    packed = np.array([[first << 4 | second] for first, second in numbers.reshape(-1, 2)], np.uint8)
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [ROWS, WIDTH]}
    parts = {"weight": torch.from_numpy(packed), "weight.quant_map": torch.from_numpy(table)}
    factors = random.uniform(0.5, 2, blocks).astype(np.float32)
    if nested:
        inner, outer = random.standard_normal(256).astype(np.float32), random.uniform(1, 2, -(-blocks // 16))
        chosen = random.integers(0, 256, blocks).astype(np.uint8)
        factors = np.array([inner[chosen[i]] * np.float32(outer[i // 16]) + np.float32(0.25) for i in range(blocks)])
        state |= {"nested_blocksize": 16, "nested_offset": 0.25, "nested_dtype": "float32"}
        parts |= {
            "weight.absmax": torch.from_numpy(chosen),
            "weight.nested_quant_map": torch.from_numpy(inner),
            "weight.nested_absmax": torch.from_numpy(outer.astype(np.float32)),
        }
    else:
        parts["weight.absmax"] = torch.from_numpy(factors)
    parts["weight.quant_state.bitsandbytes__nf4"] = torch.from_numpy(
        np.frombuffer(json.dumps(state).encode(), np.uint8).copy()
    )
    matrix = np.array([table[number] * factors[place // 64] for place, number in enumerate(numbers)], np.float32)
    return parts, torch.from_numpy(matrix).view(ROWS, WIDTH).to(torch.bfloat16)


def eight_bits():
    weight = torch.from_numpy(np.random.default_rng(4).integers(-127, 128, (ROWS, WIDTH)).astype(np.int8))
    largest = torch.rand(ROWS, generator=torch.Generator().manual_seed(5))
    parts = {"weight": weight, "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return parts, weight.float() * (largest / 127)[:, None]


def in_floats(packed):
    """As `bnb_4bit_quant_storage` stores the bytes."""
    parts, matrix = packed
    return parts | {"weight": parts["weight"].view(-1).view(torch.bfloat16)[:, None]}, matrix


def of_autofp8():
    """A scale of the whole matrix, by the name that compressed-tensors has for it."""
    parts, _ = scaled(torch.float8_e4m3fn, (1,), input_scale=torch.ones(1))
    return parts, parts["weight"].float() * parts["weight_scale"].float()


def groups(written, weights, **others):
    group = {"weights": weights, "targets": ["Linear"]}
    return {"quant_method": "compressed-tensors", "format": written, "config_groups": {"group_0": group}, **others}


GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32}
KINDS = {
    "awq": (AWQ, awq()),
    "gptq": (GPTQ, gptq(4, 1)),
    "gptq in an order of its own": (GPTQ | {"desc_act": True}, gptq(4, 1, act_order=True)),
    "gptq of 8 bits": (GPTQ, gptq(8, 1)),
    "gptq of 3 bits": (GPTQ, gptq_of_three_bits()),
    "gptq_v2 of 2 bits": (GPTQ | {"checkpoint_format": "gptq_v2"}, gptq(2, 0)),
    "gptq_v2 by its other name": (GPTQ | {"format": "gptq_v2"}, gptq(4, 0)),
    "auto-round": ({"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq"}, gptq(4, 1)),
    "auto-round as awq": ({"quant_method": "auto-round", "packing_format": "auto_round:auto_awq"}, awq()),
    "pack-quantized": (groups("pack-quantized", {"num_bits": 4, "type": "int"}), compressed(4)),
    "pack-quantized in an order of its own": (
        groups("pack-quantized", {"num_bits": 4, "type": "int", "actorder": "group"}), compressed(4, "other"),
    ),
    "pack-quantized without an order": (
        groups("pack-quantized", {"num_bits": 4, "type": "int"}), compressed(4, "none"),
    ),
    "pack-quantized of 8 bits": (groups("pack-quantized", {"num_bits": 8, "type": "int"}), compressed(8)),
    "int-quantized": (groups("int-quantized", {"num_bits": 8, "type": "int"}), scaled(torch.int8, (ROWS, 1))),
    "float-quantized": (
        groups("float-quantized", {"num_bits": 8, "type": "float"}),
        scaled(torch.float8_e4m3fn, (1,), input_scale=torch.ones(1)),
    ),
    "float-quantized in blocks": (
        groups("float-quantized", {"num_bits": 8, "type": "float"}),
        scaled(torch.float8_e4m3fn, (2, 2)),
    ),
    "nf4": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, bits_of_a_table(nested=False)),
    "nf4 with nested scales": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, bits_of_a_table(nested=True)),
    "nf4 in bytes that are stored as floats": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True}, in_floats(bits_of_a_table(nested=True)),
    ),
    "fp8 of AutoFP8": (
        {"quant_method": "fp8", "activation_scheme": "static"}, of_autofp8(),
    ),
    "llm.int8 of a config that does not name it": ({"load_in_8bit": True}, eight_bits()),
    "llm.int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, eight_bits()),
}  # fmt: skip


def folder_of(folder, settings, tensors):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "quantization_config": settings}))
    save_file(tensors, folder / "model.safetensors")
    return find_checkpoint(str(folder)).weights


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_matrix(kind, tmp_path):
    settings, (parts, matrix) = KINDS[kind]
    bias = torch.arange(float(len(matrix)))
    tensors = {f"layers.0.up_proj.{last}": part for last, part in parts.items()}
    weights = folder_of(tmp_path / "model", settings, {**tensors, "layers.0.up_proj.bias": bias})
    assert sorted(tensor_names(weights)) == ["layers.0.up_proj.bias", "layers.0.up_proj.weight"]
    read = load_tensors(weights)
    assert torch.equal(read["layers.0.up_proj.bias"], bias)
    found = read["layers.0.up_proj.weight"]
    assert (found.shape, found.dtype) == (matrix.shape, matrix.dtype)
    assert torch.equal(found, matrix)


def test_a_model_has_the_unpacked_weights(tmp_path):
    folder, expected = awq_folder(tmp_path / "model", hidden_size=64, intermediate_size=96)
    source = find_checkpoint(str(folder))
    found = load_model(source, read_config(source), AutoModelForCausalLM).model.state_dict()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight.float())


@pytest.mark.parametrize("as_stored", [False, True])
def test_layers_that_keep_their_weights_the_other_way_round(as_stored, tmp_path):
    """GPT-2's: packed, they are those of a linear layer, so that also a square matrix is turned."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_embd=64, n_inner=96, n_layer=1, n_head=2, n_positions=16)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    tensors, expected = load_tensors(find_checkpoint(str(tmp_path)).weights), {}
    for name in [name for name in tensors if re.search(r"(attn|mlp)\.c_\w+\.weight", name)]:
        width, rows = tensors.pop(name).shape
        numbers, zeros, scales, matrix = in_blocks(4, rows=rows, width=width)
        parts = {"qweight": placed(numbers, 4).T, "qzeros": placed(zeros.T - 1, 4), "scales": scales.T}
        tensors |= {name.replace("weight", last): part.contiguous() for last, part in parts.items()}
        expected[name] = matrix.half().T.float()
    save_file(tensors, tmp_path / "model.safetensors")
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(written | {"quantization_config": GPTQ}))
    source = find_checkpoint(str(tmp_path))
    model = load_model(source, read_config(source), AutoModelForCausalLM, as_stored=as_stored).model
    assert len(expected) == 4
    for name, matrix in expected.items():
        assert torch.equal(model.get_parameter(name)[...].float(), matrix), name


def test_settings_in_a_file_beside_the_config(tmp_path):
    for beside, content, (parts, matrix) in (
        ("quantize_config.json", {"bits": 4, "group_size": 32, "desc_act": False}, gptq(4, 1)),
        ("quant_config.json", {"zero_point": True, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}, awq()),
    ):
        folder = tmp_path / beside
        folder_of(folder, None, {f"head.{last}": part for last, part in parts.items()})
        (folder / beside).write_text(json.dumps(content))
        assert torch.equal(load_tensors(find_checkpoint(str(folder)).weights)["head.weight"], matrix)


@pytest.mark.parametrize("key", ["checkpoint_format", "format"])
def test_a_file_beside_the_config_that_says_more(key, tmp_path):
    parts, matrix = gptq(4, 0)
    weights = {f"head.{last}": part for last, part in parts.items()}
    folder_of(tmp_path / "model", GPTQ, weights)
    (tmp_path / "model" / "quantize_config.json").write_text(json.dumps({"bits": 4, key: "gptq_v2"}))
    assert torch.equal(load_tensors(find_checkpoint(str(tmp_path / "model")).weights)["head.weight"], matrix)


def test_integers_that_nothing_explains(tmp_path):
    weights = folder_of(tmp_path / "model", None, {"head.weight": torch.ones(4, 3, dtype=torch.int8)})
    with pytest.raises(ExportError, match=r"head\.weight is stored in integers, and the config does not say what they"):
        load_tensors(weights)


@pytest.mark.parametrize("kind", ["fp8", "compressed-tensors"])
def test_scales_of_a_cache_are_left_out(kind, tmp_path):
    """Of keys and values that other engines round; nothing of a bundle rounds them."""
    settings, (parts, matrix) = KINDS["fp8 of AutoFP8" if kind == "fp8" else "float-quantized"]
    tensors = {f"layers.0.attn.k_proj.{last}": part for last, part in parts.items()}
    scales = {f"layers.0.attn.{part}_scale": torch.ones(1) for part in ("q", "k", "v", "kv")}
    weights = folder_of(tmp_path / "model", settings, tensors | scales)
    assert tensor_names(weights) == ["layers.0.attn.k_proj.weight"]
    assert torch.equal(load_tensors(weights)["layers.0.attn.k_proj.weight"], matrix)
    assert set(scales) < set(tensor_names(folder_of(tmp_path / "floats", None, tensors | scales)))


@pytest.mark.parametrize("kind", [torch.int8, torch.bool])
def test_whole_numbers_of_a_bias_are_refused(kind, tmp_path):
    folder = llama_folder(tmp_path / "model", attention_bias=True)
    tensors = load_tensors(find_checkpoint(str(folder)).weights)
    name = "model.layers.1.self_attn.k_proj.bias"
    save_file(tensors | {name: torch.ones(tensors[name].shape, dtype=kind)}, folder / "model.safetensors")
    source = find_checkpoint(str(folder))
    with pytest.raises(ExportError, match=rf"{re.escape(name)} is stored in whole numbers, and nothing says"):
        load_model(source, read_config(source), AutoModelForCausalLM)


def test_settings_that_are_no_objects(tmp_path):
    folder = llama_folder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for key in ("quantization_config", "task_specific_params"):
        (folder / "config.json").write_text(json.dumps(config | {key: ["fp8"]}))
        with pytest.raises(ExportError, match=rf"config\.json: {key} must be an object"):
            read_config(find_checkpoint(str(folder)))


def state_of(parts, **changes):
    name = next(name for name in parts if "quant_state" in name)
    state = json.loads(bytes(parts[name].tolist())) | changes
    return {**parts, name: torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8)}


NESTED = bits_of_a_table(nested=True)[0]


@pytest.mark.parametrize(
    "parts",
    [
        # 8-bit numbers whose factors are lost would be factors themselves.
        {name: part for name, part in NESTED.items() if name != "weight.nested_absmax"},
        {name: part for name, part in NESTED.items() if "quant_state" not in name},
        state_of(NESTED, quant_type="fp4"),
        state_of(NESTED, blocksize=0),
        # Not twice as many numbers as bytes.
        NESTED | {"weight": torch.zeros(ROWS, WIDTH)},
        # Numbers in another order than that of rows.
        eight_bits()[0] | {"weight_format": torch.tensor(1, dtype=torch.uint8)},
    ],
    ids=["nested factors", "no state", "another type", "no blocks", "floats", "an order for a GPU"],
)
def test_what_bitsandbytes_does_not_write_is_refused(parts, tmp_path):
    weights = folder_of(
        tmp_path / "model", {"quant_method": "bitsandbytes"}, {f"head.{last}": part for last, part in parts.items()}
    )
    with pytest.raises(ExportError, match=r"head\.weight cannot be unpacked"):
        load_tensors(weights)


def test_a_method_without_a_name(tmp_path):
    folder = llama_folder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"group_size": 64, "bits": 4}}))
    with pytest.raises(ExportError, match="are quantized by a method without a name, as MLX's files are"):
        read_config(find_checkpoint(str(folder)))


@pytest.mark.parametrize("lost", ["qzeros", "scales"])
def test_tensors_that_do_not_fit_are_named(lost, tmp_path):
    parts, _ = awq()
    shorter = {last: part[:-1] if last == lost else part for last, part in parts.items()}
    weights = folder_of(tmp_path / "model", AWQ, {f"head.{last}": part for last, part in shorter.items()})
    with pytest.raises(ExportError, match=r"head\.weight cannot be unpacked.*qweight \[64, 6\].*fetch the model again"):
        load_tensors(weights)
    missing = {f"head.{last}": part for last, part in parts.items() if last != lost}
    with pytest.raises(ExportError, match=r"head\.weight cannot be unpacked"):
        load_tensors(folder_of(tmp_path / "other", AWQ, missing))


@pytest.mark.parametrize(
    "settings",
    [
        AWQ | {"version": "gemv"},
        GPTQ | {"checkpoint_format": "marlin"},
        GPTQ | {"is_marlin_format": True},
        groups("pack-quantized", {"num_bits": 3, "type": "int"}),
        groups("marlin-24", {"num_bits": 4, "type": "int"}),
        groups("pack-quantized", {"num_bits": 4, "type": "int"}, sparsity_config={"format": "sparse-24-bitmask"}),
        groups("pack-quantized", {"num_bits": [4], "type": "int"}),
        groups(["pack-quantized"], {"num_bits": 4, "type": "int"}),
        GPTQ | {"checkpoint_format": ["gptq"]},
        {"quant_method": "aqlm"},
    ],
)
def test_other_ways_are_refused_by_name(settings, tmp_path):
    folder = llama_folder(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    with pytest.raises(ExportError, match=f"are quantized by {re.escape(settings['quant_method'])}"):
        read_config(find_checkpoint(str(folder)))
