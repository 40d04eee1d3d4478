"""Saves what the model keeps of a prompt to a file, so that a later process does not compute it again.

It is a safetensors file (https://huggingface.co/docs/safetensors): the length of a JSON header, the header, and the
data. Each buffer of the KV cache is a tensor, float32 (num_key_value_heads, tokens, head_dim), and so is each state of
fixed size. The header's metadata has the token ids, a hash of the bundle, and a checksum of header and data. This
module reads and writes only this much of the format, so a device does not need the package safetensors.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.bundle.manifest import Manifest
from triform.runtime.bundle.outside import check_outside_bundles
from triform.runtime.errors import InputError, option
from triform.runtime.files import whole_file

_FLOAT = np.dtype("<f4")


def bundle_hash(manifest: Manifest) -> str:
    """A hash that identifies a bundle: SHA-256, in hex, of its manifest's list of files."""
    files = {name: [info.size, info.sha256] for name, info in manifest.files.items()}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def write_prompt_cache(
    path: Path, manifest: Manifest, ids: Sequence[int], arrays: Mapping[str, NDArray[np.float32]]
) -> None:
    """Write a prompt cache; if that fails, an existing file is left as it was.

    Args:
        path: the file, replaced if it exists.
        manifest: the bundle's.
        ids: the token ids.
        arrays: from `DecoderStep.stored`, for these tokens.

    Raises:
        InputError: the file cannot be written.
        OSError: the disk is full.
    """
    header: dict[str, Any] = {}
    end = 0
    for name, array in arrays.items():
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    header["__metadata__"] = {
        "bundle": bundle_hash(manifest),
        "token_ids": json.dumps(list(map(int, ids))),
        "length": str(len(ids)),
    }
    checksum = _header_checksum(header)
    for array in arrays.values():
        checksum = zlib.crc32(_plain(array.astype(_FLOAT, copy=False)), checksum)
    header["__metadata__"]["crc32"] = str(checksum)
    text = json.dumps(header).encode()
    # The format pads the header with spaces, so that the data begins at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    check_outside_bundles(path)
    with whole_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            file.write(_plain(array.astype(_FLOAT, copy=False)))


def _plain(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).data.cast("B")


def read_prompt_cache(path: Path, manifest: Manifest) -> tuple[list[int], dict[str, NDArray[np.float32]]]:
    """Memory-map a file from `write_prompt_cache`.

    Args:
        path: the file.
        manifest: the manifest of the bundle that will use it.

    Returns:
        the token ids, and their keys and values and the states after them by name, read-only; see
            `KVCache.load`.

    Raises:
        InputError: the file cannot be read, is damaged, or was made with another bundle.
    """
    try:
        data = np.memmap(path, np.uint8, mode="r")
    except OSError as error:
        raise InputError(f"{option('prompt_cache')} {path} cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise _damaged(path, "it is empty") from None
    try:
        header, start = _header(data)
        metadata = header["__metadata__"]
        if metadata["bundle"] != bundle_hash(manifest):
            raise InputError(
                f"{option('prompt_cache')} {path} was made with another bundle; delete it, or name another file"
            )
        return _content(header, data[start:], manifest)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {str(error)[:80]}") from None


def _header(data: NDArray[np.uint8]) -> tuple[dict[str, Any], int]:
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    if not 8 <= start <= len(data):
        raise ValueError("its header is cut off")
    header = json.loads(data[8:start].tobytes())
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    return header, start


def _content(
    header: dict[str, Any], data: NDArray[np.uint8], manifest: Manifest
) -> tuple[list[int], dict[str, NDArray[np.float32]]]:
    """The ids and arrays of a file, all of it checked. Raises what `read_prompt_cache` catches."""
    metadata = header["__metadata__"]
    ids = json.loads(metadata["token_ids"])
    if len(ids) != int(metadata["length"]) or not 1 <= len(ids) <= manifest.max_length:
        raise ValueError("its number of tokens does not match")
    if not all(type(token) is int and 0 <= token < manifest.vocab_size for token in ids):
        raise ValueError("it has token ids outside the vocabulary")
    arrays: dict[str, NDArray[np.float32]] = {}
    for index, layer in enumerate(manifest.cache.layers if manifest.cache else ()):
        shape = (layer.num_key_value_heads, len(ids), layer.head_dim)
        for name in (f"{index}.key", f"{index}.value"):
            arrays[name] = _array(header[name], data, shape)
    for index, state in enumerate(manifest.cache.states if manifest.cache else ()):
        name = f"states.{index}"
        arrays[name] = _array(header[name], data, tuple(state.shape))
    if sum(array.nbytes for array in arrays.values()) != len(data):
        raise ValueError("it is cut off or too long")
    if zlib.crc32(data.data, _header_checksum(header)) != int(metadata["crc32"]):
        raise ValueError("its checksum differs")
    return ids, arrays


def _header_checksum(header: Mapping[str, Any]) -> int:
    """CRC-32 of the header without its own checksum, independent of the order of keys and of white space."""
    metadata = {name: value for name, value in header["__metadata__"].items() if name != "crc32"}
    return zlib.crc32(json.dumps({**header, "__metadata__": metadata}, sort_keys=True).encode())


def _array(entry: Any, data: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.float32]:
    begin, end = entry["data_offsets"]
    if entry["dtype"] != "F32" or tuple(entry["shape"]) != shape or not 0 <= begin <= end <= len(data):
        raise ValueError("a tensor does not fit the model, or is cut off")
    result: NDArray[np.float32] = data[begin:end].view(_FLOAT).reshape(shape)
    return result


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{option('prompt_cache')} {path} is damaged, or not a prompt cache ({what}); delete it")
