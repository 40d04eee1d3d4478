"""Empties the machine code in a CUDA library that one GPU never runs, so that the library packs small.

A `.nv_fatbin` section holds one container per source file, and each container one image per architecture. Images of
other architectures become zeros; sections and offsets stay as they are. So do images that hold nothing but kernels for
mixtures of experts: they are two thirds of onnxruntime's code for sm_90, and no bundle for GPUs has experts. Such an
image is also marked as code for `NO_GPU`, so that an operator that needs it after all fails with "no kernel image is
available" and computes nothing.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CONTAINER_MAGIC, CUBIN = 0xBA55ED50, 2
# Images are compressed with Zstandard where this bit of their flags is set.
ZSTANDARD = 0x8000
ARCHITECTURE_OFFSET = 28
# The newest architecture in the library: no Hopper GPU loads its code.
NO_GPU = 120
# By the names that kernels have in cubins. CUTLASS' arrays of products with mixed inputs are those of experts.
EXPERT_KERNELS = re.compile(rb"MoeFCGemm|fused_moe|moe_gemv|CollectiveMmaArrayMixedInput")
KERNEL_SECTION = re.compile(rb"\0\.text\.([^\0]+)")


@dataclass(frozen=True)
class Image:
    """The code of one source file for one architecture; `header`, `start` and `stop` are offsets into the library."""

    header: int
    start: int
    stop: int
    kind: int
    architecture: int
    compressed_size: int
    flags: int


def prune(path: Path, architecture: int) -> None:
    """Keep the code for `architecture` (90 for Hopper) in the library at `path`, but no kernels of experts.

    A library without CUDA code stays as it is.

    Raises:
        ValueError: the library holds no code for the architecture, or code that is not compressed as expected.
    """
    data = bytearray(path.read_bytes())
    images = list(_images(data))
    if images and not any(_fits(image, architecture) for image in images):
        raise ValueError(f"{path.name}: holds no code for sm_{architecture}")
    for image in images:
        if not _fits(image, architecture):
            data[image.start : image.stop] = bytes(image.stop - image.start)
        elif _only_experts(_cubin(data, image)):
            data[image.start : image.stop] = bytes(image.stop - image.start)
            struct.pack_into("<I", data, image.header + ARCHITECTURE_OFFSET, NO_GPU)
    path.write_bytes(data)


def _fits(image: Image, architecture: int) -> bool:
    return image.kind == CUBIN and image.architecture == architecture


def _only_experts(cubin: bytes) -> bool:
    # CUB leaves an empty kernel in every file that includes it.
    kernels = [name for name in KERNEL_SECTION.findall(cubin) if b"EmptyKernel" not in name]
    return bool(kernels) and all(EXPERT_KERNELS.search(name) for name in kernels)


def _cubin(data: bytearray, image: Image) -> bytes:
    if not image.flags & ZSTANDARD:
        raise ValueError(f"the code at offset {image.start} is not compressed with Zstandard")
    packed = bytes(data[image.start : image.start + image.compressed_size])
    return subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout


def _images(data: bytearray) -> Iterator[Image]:
    for start, stop in _fatbin_sections(data):
        position = start
        while position + 16 <= stop:
            magic, _, header_size, body_size = struct.unpack_from("<IHHQ", data, position)
            if magic != CONTAINER_MAGIC:
                position += 8
                continue
            yield from _container(data, position + header_size, position + header_size + body_size)
            position += header_size + body_size


def _container(data: bytearray, start: int, stop: int) -> Iterator[Image]:
    while start < stop:
        kind, _, header_size, body_size, compressed_size = struct.unpack_from("<HHIQI", data, start)
        (architecture,) = struct.unpack_from("<I", data, start + ARCHITECTURE_OFFSET)
        (flags,) = struct.unpack_from("<Q", data, start + 40)
        body = start + header_size
        yield Image(start, body, body + body_size, kind, architecture, compressed_size, flags)
        start = body + body_size


def _fatbin_sections(data: bytearray) -> Iterator[tuple[int, int]]:
    """Offsets of an ELF file's sections of CUDA code."""
    (table,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", data, table + index * size) for index in range(count)]
    strings = sections[names][4]
    for name, _, _, _, offset, length in sections:
        start = strings + name
        if data[start : data.index(b"\0", start)].startswith((b".nv_fatbin", b"__nv_relfatbin")):
            yield offset, offset + length
