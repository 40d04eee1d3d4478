"""Matrices packed as AWQ, GPTQ and others do it, one number after the other."""

from __future__ import annotations

import json

import numpy as np
import torch
from safetensors.torch import save_file

from tests.checkpoints.decoders import llama_folder
from triform.export.checkpoint.files.weights import load_tensors
from triform.export.checkpoint.resolve import find_checkpoint

ROWS, WIDTH, GROUPS = 48, 64, 2
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm"}


def placed(numbers, bits, order=None):
    """Unsigned numbers (rows, columns) in int32, the first of each in the lowest bits."""
    each = 32 // bits
    order = order or range(each)
    words = np.zeros((len(numbers), numbers.shape[1] // each), np.uint64)
    for row in range(words.shape[0]):
        for word in range(words.shape[1]):
            for place, column in enumerate(order):
                words[row, word] |= np.uint64(int(numbers[row, word * each + column]) << (bits * place))
    return torch.from_numpy(words.astype(np.uint32).view(np.int32))


def in_blocks(bits, seed=0, rows=ROWS, width=WIDTH, groups=GROUPS):
    """Numbers (rows, width), zero points and scales (rows, groups), and the matrix in float32."""
    random = np.random.default_rng(seed)
    numbers, zeros = random.integers(0, 2**bits, (rows, width)), random.integers(1, 2**bits, (rows, groups))
    scales = torch.from_numpy(random.uniform(0.01, 0.1, (rows, groups)).astype(np.float16))
    centered = numbers - np.repeat(zeros, width // groups, 1)
    matrix = centered * np.repeat(scales.float().numpy(), width // groups, 1)
    return numbers, zeros, scales, torch.from_numpy(matrix.astype(np.float32))


def awq(seed=0, rows=ROWS, width=WIDTH, groups=GROUPS):
    numbers, zeros, scales, matrix = in_blocks(4, seed, rows, width, groups)
    qweight, qzeros = (placed(array.T, 4, AWQ_ORDER) for array in (numbers, zeros))
    return {"qweight": qweight, "qzeros": qzeros, "scales": scales.T.contiguous()}, matrix.half()


def awq_folder(folder, **settings):
    """A Llama whose layers are packed by AWQ, and their matrices by name, float16."""
    llama_folder(folder, num_attention_heads=4, head_dim=16, **settings)
    tensors = load_tensors(find_checkpoint(str(folder)).weights)
    expected = {}
    for seed, (name, weight) in enumerate(sorted(tensors.items())):
        if "mlp" in name or "self_attn" in name:
            parts, expected[name] = awq(seed, *weight.shape)
            del tensors[name]
            tensors |= {name.replace("weight", last): part for last, part in parts.items()}
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    assert len(expected) == 7 * config["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": AWQ}))
    return folder, expected
