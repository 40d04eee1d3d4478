"""Makes bundles small enough to travel to a machine without a network: weights of 4 bits, exact in float16.

    python tests/gpu/coded_weights.py round CHECKPOINT TARGET  # a copy: matrices are 4-bit numbers times scales
    python tests/gpu/coded_weights.py encode BUNDLE TARGET     # a bundle exported from it, for `decode`
    python tests/gpu/coded_weights.py decode CODED TARGET      # the bundle again, byte by byte

Scales have 8 bits of precision, so that their products with integers from -8 to 7 are float16 numbers.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
_FEWEST = 2**14
_FILE = "coded.npz"


def round_checkpoint(source: Path, target: Path) -> None:
    """Write a copy of a checkpoint with rounded matrices."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.safetensors", "*.bin"))
    for path in source.glob("*.safetensors"):
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and tensor.dim() == 2 and tensor.shape[1] % BLOCK == 0:
                tensors[name] = rounded(tensor.float())
        save_file(tensors, target / path.name, metadata={"format": "pt"})


def rounded(matrix: object) -> object:
    """The nearest matrix of 4-bit numbers times scales, with the best of a few scales for each block."""
    import torch

    rows = matrix.view(len(matrix), -1, BLOCK)
    largest = rows.gather(-1, rows.abs().argmax(-1, keepdim=True))
    best, best_error = torch.zeros_like(rows), torch.full_like(largest, float("inf"))
    for fraction in (0.8, 0.86, 0.92, 1.0):
        scale = (largest * (-fraction / 8)).bfloat16().float()
        divisor = torch.where(scale == 0, 1.0, scale)
        values = (rows / divisor).round().clamp(-8, 7) * scale
        error = ((values - rows) ** 2).sum(-1, keepdim=True)
        best = torch.where(error < best_error, values, best)
        best_error = torch.minimum(error, best_error)
    # Zeros of one sign.
    return (best + 0.0).view_as(matrix).contiguous()


def encode(bundle: Path, target: Path) -> None:
    """Write a bundle with its matrices of float16 coded, all else as it is."""
    target.mkdir()
    coded: dict[str, NDArray[np.generic]] = {}
    for path in bundle.iterdir():
        if path.suffix == ".data":
            data = np.fromfile(path, np.uint8)
            for offset, length, shape in _matrices(bundle, path.name):
                values = data[offset : offset + length].view(np.float16).reshape(shape)
                for axis in (0, 1):
                    parts = _code(values if axis == 0 else np.ascontiguousarray(values.T))
                    if parts is None:
                        continue
                    integers, scales = parts
                    key = f"{path.name}|{offset}|{axis}|{shape[0]}|{shape[1]}"
                    coded[f"{key}|q"], coded[f"{key}|s"] = integers, scales
                    data[offset : offset + length] = 0
                    break
            data.tofile(target / path.name)
        else:
            shutil.copyfile(path, target / path.name)
    np.savez(target / _FILE, **coded)


def decode(coded: Path, target: Path) -> None:
    """Restore a bundle."""
    shutil.copytree(coded, target, ignore=shutil.ignore_patterns(_FILE))
    arrays = np.load(coded / _FILE)
    for key in {name.rpartition("|")[0] for name in arrays.files}:
        name, offset, axis, rows, columns = key.split("|")
        packed, scales = arrays[f"{key}|q"], arrays[f"{key}|s"].astype(np.float32)
        integers = np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1, BLOCK).astype(np.float32) - 8
        # Zeros of one sign.
        values = (integers * scales[..., None] + 0.0).reshape(len(packed), -1)
        values = values if axis == "0" else values.T
        data = np.memmap(target / name, np.uint8, "r+")
        data[int(offset) : int(offset) + 2 * int(rows) * int(columns)] = (
            np.ascontiguousarray(values, np.float16).view(np.uint8).ravel()
        )
        data.flush()


def _matrices(bundle: Path, data: str) -> list[tuple[int, int, tuple[int, ...]]]:
    """Offset, length and shape of the large matrices of float16 in a data file, each once."""
    import onnx

    found: dict[int, tuple[int, int, tuple[int, ...]]] = {}
    for path in bundle.glob("*.onnx"):
        for tensor in onnx.load(path, load_external_data=False).graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if entries.get("location") != data or tensor.data_type != onnx.TensorProto.FLOAT16 or len(tensor.dims) != 2:
                continue
            if np.prod(tensor.dims) >= _FEWEST:
                found[int(entries["offset"])] = (int(entries["offset"]), int(entries["length"]), tuple(tensor.dims))
    return list(found.values())


def _code(values: NDArray[np.float16]) -> tuple[NDArray[np.uint8], NDArray[np.float16]] | None:
    """4-bit integers, two a byte, and scales; None if a block is no product of both."""
    rows, columns = values.shape
    if columns % BLOCK:
        return None
    blocks = values.astype(np.float32).reshape(rows, -1, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    scales = np.zeros_like(largest)
    done = largest == 0
    for integer in (-8, 7, -7, 6, -6, 5, -5, 4, -4, 3, -3, 2, -2, 1, -1):
        tried = (largest / integer).astype(np.float16).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            numbers = np.round(blocks / tried)
        fits = (numbers * tried == blocks).all(-1, keepdims=True) & (np.abs(numbers + 0.5) <= 8).all(-1, keepdims=True)
        scales = np.where(fits & ~done, tried, scales)
        done |= fits
    if not done.all():
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        integers = np.where(scales == 0, 0, np.round(blocks / scales)) + 8
    flat = integers.astype(np.uint8).reshape(rows, -1)
    return flat[:, ::2] | flat[:, 1::2] << 4, scales[..., 0].astype(np.float16)


def main() -> None:
    """Parse and call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("round", "encode", "decode"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    asked = parser.parse_args()
    {"round": round_checkpoint, "encode": encode, "decode": decode}[asked.command](asked.source, asked.target)


if __name__ == "__main__":
    main()
