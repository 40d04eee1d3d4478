"""Which packed weights can be unpacked, by a checkpoint's quantization_config."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from triform.export.checkpoint.files.packed.awq import AWQ
from triform.export.checkpoint.files.packed.bitsandbytes import BITSANDBYTES
from triform.export.checkpoint.files.packed.compressed_tensors import grid_packings, scaled_packings
from triform.export.checkpoint.files.packed.fp8 import fp8_packings
from triform.export.checkpoint.files.packed.gptq import gptq_packings
from triform.export.checkpoint.files.packed.packing import Packing
from triform.export.checkpoint.files.packed.scales import BlockLengths

_GPTQ_FORMATS = {"gptq": True, "gptq_v2": False, "auto_round:auto_gptq": True, "auto_round:gptq": True}
_COMPRESSED = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "dense")
# Where rotations are part of the weights.
_OF_WEIGHTS = ("weight_input", "weight_output")
# Of packed numbers that no integer holds a part of.
_BITS = (2, 4, 8)


def packings_of(settings: Mapping[str, Any]) -> tuple[Packing, ...]:
    """How the weights of a checkpoint are packed.

    Args:
        settings: quantization_config.

    Returns:
        nothing if their kind is unknown.
    """
    match method_of(settings):
        case "awq":
            return AWQ if str(settings.get("version", "gemm")).lower() == "gemm" else ()
        case "gptq" | "auto-round":
            return _gptq(settings)
        case "bitsandbytes":
            return BITSANDBYTES
        case "compressed-tensors":
            return _compressed(settings)
        case "fp8":
            return fp8_packings(settings)
    return ()


def method_of(settings: Mapping[str, Any]) -> str:
    """The name of the method, such as awq."""
    method = settings.get("quant_method")
    if method is None and (settings.get("load_in_4bit") or settings.get("load_in_8bit")):
        # The first files of bitsandbytes do not name it.
        return "bitsandbytes"
    return str(getattr(method, "value", method))


def _gptq(settings: Mapping[str, Any]) -> tuple[Packing, ...]:
    # GPTQModel reads both of its names.
    named = (settings.get(key) for key in ("checkpoint_format", "format", "packing_format"))
    written = str(next((name for name in named if name), "gptq"))
    if written not in _GPTQ_FORMATS or settings.get("is_marlin_format"):
        return AWQ if written == "auto_round:auto_awq" else ()
    return gptq_packings(_GPTQ_FORMATS[written])


def _compressed(settings: Mapping[str, Any]) -> tuple[Packing, ...]:
    groups = settings.get("config_groups")
    groups = list(groups.values()) if isinstance(groups, dict) else []
    if not all(isinstance(group, dict) for group in groups):
        return ()
    formats = [settings.get("format"), *(group.get("format") for group in groups)]
    written = {str(name) for name in formats if name is not None} - {"mixed-precision"}
    sparsity = settings.get("sparsity_config")
    sparse = sparsity.get("format") not in (None, "dense") if isinstance(sparsity, dict) else bool(sparsity)
    weights = [group.get("weights") for group in groups]
    if not written <= set(_COMPRESSED) or sparse or not _rotates_nothing(settings.get("transform_config")):
        return ()
    if "pack-quantized" not in written:
        return scaled_packings(_lengths(weights))
    bits = [item.get("num_bits") for item in weights if isinstance(item, dict) and item.get("type", "int") == "int"]
    known = next((size for size in _BITS if bits and all(number == size for number in bits)), None)
    return () if known is None else grid_packings(known, _lengths(weights))


def _rotates_nothing(transforms: Any) -> bool:
    """Whether a model computes no rotations besides those that its weights have in them already."""
    if not transforms:
        return True
    schemes = transforms.get("config_groups") if isinstance(transforms, dict) else None
    if not isinstance(schemes, dict):
        return False
    places = [place for scheme in schemes.values() if isinstance(scheme, dict) for place in scheme.get("apply") or [{}]]
    return all(isinstance(place, dict) and place.get("location") in _OF_WEIGHTS for place in places)


def _lengths(weights: Iterable[Any]) -> BlockLengths:
    """How long groups of columns and blocks of both are, in the groups of a config."""
    rows, columns = set(), set()
    for item in weights:
        if isinstance(item, dict):
            block = item.get("block_structure")
            # Older files write 128x128.
            sizes = block.split("x") if isinstance(block, str) else block or ()
            rows |= _whole(sizes[:1])
            columns |= _whole([*sizes[1:2], item.get("group_size")])
    return BlockLengths(frozenset(rows), frozenset(columns))


def _whole(sizes: Iterable[Any]) -> set[int]:
    """The numbers of columns or rows among what a config says, which has -1 and null for all of them."""
    return {int(size) for size in sizes if str(size).isdecimal() and int(size) > 0}
