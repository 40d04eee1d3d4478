"""The files of bitsandbytes: 4-bit numbers that stand for floats of a table (arXiv:2305.14314), and 8-bit integers."""

from __future__ import annotations

import json
import math
from typing import Any

import torch

from triform.export.checkpoint.files.packed.packing import PackedTensors, Packing

_STATE = "weight.quant_state.bitsandbytes__"
_STATES = (f"{_STATE}nf4", f"{_STATE}fp4")
# Numbers of 8 bits are from -127 to 127.
_LARGEST = 127


def _unpack_4_bits(parts: PackedTensors) -> torch.Tensor:
    """Unpack a matrix.

    weight is bytes with two numbers each, high bits first, whatever type they are stored as (bnb_4bit_quant_storage);
    weight.quant_map float32 (16,) what they stand for; weight.absmax the factor of each block, or an 8-bit number for
    it: then weight.nested_quant_map says what that stands for, and weight.nested_absmax is the factor of each block of
    these. The state is JSON, in uint8.
    """
    state = _state(parts)
    shape, size = state["shape"], int(state["blocksize"])
    packed = parts["weight"].flatten().view(torch.uint8)
    numbers = torch.stack([packed >> 4, packed & 15], -1).flatten()[: math.prod(shape)]
    factors = parts["weight.absmax"]
    if "weight.nested_absmax" in parts:
        table, outer = parts["weight.nested_quant_map"], parts["weight.nested_absmax"].float()
        outer = outer.repeat_interleave(int(state["nested_blocksize"]))[: len(factors)]
        factors = table[factors.long()] * outer + float(state["nested_offset"])
    if not factors.is_floating_point():
        raise ValueError("what the factors stand for is missing")
    if (
        len(packed) != -(-len(numbers) // 2)
        or len(numbers) != math.prod(shape)
        or len(factors) != -(-len(numbers) // size)
    ):
        raise ValueError("their shapes do not fit")
    values = parts["weight.quant_map"].float()[numbers.long()]
    values *= factors.float().repeat_interleave(size)[: len(values)]
    kind = getattr(torch, str(state["dtype"]), None)
    if kind not in (torch.float16, torch.bfloat16, torch.float32):
        raise ValueError(f"an unknown type {state['dtype']}")
    return values.to(kind).view(shape)


def _state(parts: PackedTensors) -> dict[str, Any]:
    """What is known of a matrix of 4-bit numbers: its type, shape and blocks."""
    name = next((name for name in _STATES if name in parts), None)
    state = None if name is None else json.loads(bytes(parts[name].tolist()))
    if not isinstance(state, dict) or name != f"{_STATE}{state.get('quant_type')}":
        raise ValueError("the state is missing, or of another type")
    return state


def _unpack_8_bits(parts: PackedTensors) -> torch.Tensor:
    """Unpack a matrix: weight is int8 (out_features, in_features), SCB float32 (out_features,) its largest values.

    weight_format is the order of the numbers, 0 for rows; other orders are for kinds of GPUs.
    """
    weight = parts["weight"]
    if "weight_format" in parts and int(parts["weight_format"]) != 0:
        raise ValueError("numbers in the order of a GPU")
    if weight.dtype != torch.int8 or parts["SCB"].shape != weight.shape[:1]:
        raise ValueError("their shapes do not fit")
    return weight.float() * (parts["SCB"].float() / _LARGEST)[:, None]


_NESTED = ("weight.nested_absmax", "weight.nested_quant_map")
BITSANDBYTES = (
    Packing("weight.absmax", ("weight", "weight.quant_map", *_NESTED, *_STATES), _unpack_4_bits),
    Packing("SCB", ("weight", "weight_format"), _unpack_8_bits),
)
