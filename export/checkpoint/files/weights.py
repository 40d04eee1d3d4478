"""The weight files of a checkpoint: safetensors or pytorch_model.bin, in one file or in shards; nothing is unpickled.

A .bin file is a pickle. It is read by `torch.load(weights_only=True)`, which rebuilds tensors and refuses everything
else by its name.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open

from triform.export.checkpoint.files.json_files import read_object
from triform.export.checkpoint.files.packed.packing import Packing, UnpackedWeight, packed_matrices
from triform.export.checkpoint.files.wrappers import unwrapped_names
from triform.runtime.errors import ExportError

_SHARD = re.compile(r".+-(?P<number>\d+)-of-(?P<count>\d+)\.(safetensors|bin)")
# How torch's error names the first object in a pickle that is not a tensor.
_FORBIDDEN = re.compile(r"(?:GLOBAL|[Cc]lass|function) ([\w.]+\.\w+)")
# As safetensors and torch write their types.
_FLOATS_OF_8_BITS = ("F8_", "torch.float8")
_INTEGERS = ("I", "U", "BOOL", "torch.int", "torch.uint", "torch.bool")
# What queries, keys and values in a cache are rounded with in other engines; floats are not rounded here.
_OF_CACHES = re.compile(r"\.(q|k|v|kv)_(scale|zero_point)$")
# The first bytes of a zip file.
_ZIP = b"PK\x03\x04"
_OTHER_FRAMEWORKS = {".h5": "TensorFlow", ".msgpack": "Flax", ".ot": "Rust", ".onnx": "ONNX"}
_OTHER_NAMES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt"}


@dataclass(frozen=True)
class WeightFiles:
    """Files that together hold a state dict.

    Attributes:
        files: in order of their names.
        listed: the index, from tensor to file name; empty without one.
        packings: how matrices are packed into several tensors, see `formats`.
    """

    files: tuple[Path, ...]
    listed: dict[str, str]
    packings: tuple[Packing, ...] = ()

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.files)


def find_weights(folder: Path, stem: Literal["model", "adapter_model"] = "model") -> WeightFiles:
    """The weight files of a folder, in the format that transformers prefers of those that exist.

    Args:
        folder: of a checkpoint, or of one module of it.
        stem: of the names of the files, a model's or an adapter's.

    Raises:
        ExportError: there are none, an index is damaged, or a shard is missing. Names the files that cannot be used.
    """
    names = (f"{stem}.safetensors", "pytorch_model.bin" if stem == "model" else f"{stem}.bin")
    for name in names:
        if (folder / name).is_file():
            return WeightFiles((folder / name,), {})
        if (folder / f"{name}.index.json").is_file():
            return _indexed(folder / f"{name}.index.json")
        shards = sorted(folder.glob(f"{Path(name).stem}-*-of-*{Path(name).suffix}"))
        if shards:
            return _complete(folder, shards)
    raise ExportError(f"{folder} has no weights, neither {' nor '.join(names)}{_instead(folder)}")


def _indexed(index: Path) -> WeightFiles:
    listed = read_object(index).get("weight_map")
    if not isinstance(listed, dict) or not listed or not all(isinstance(name, str) for name in listed.values()):
        raise ExportError(f"{index} has no weight_map from tensors to files")
    files = []
    for name in sorted(set(listed.values())):
        if Path(name).name != name:
            raise ExportError(f"{index} names {name}, which is not a file beside it")
        if not (index.parent / name).is_file():
            raise ExportError(f"{index.parent} lacks {name}, which {index.name} names; fetch the model again")
        files.append(index.parent / name)
    return WeightFiles(tuple(files), listed)


def _complete(folder: Path, shards: list[Path]) -> WeightFiles:
    """Shards without an index: as many as their names say."""
    matches = [match for path in shards if (match := _SHARD.fullmatch(path.name))]
    counts, numbers = {int(match["count"]) for match in matches}, {int(match["number"]) for match in matches}
    if len(counts) != 1 or numbers != set(range(1, max(counts) + 1)):
        raise ExportError(f"{folder} has {shards[0].name} but not all of its parts; fetch the model again")
    return WeightFiles(tuple(shards), {})


def _instead(folder: Path) -> str:
    """What a folder holds instead, and what to do about it."""
    gone = sorted(path.name for path in folder.iterdir() if path.is_symlink() and not path.exists())
    if gone:
        return f"; {gone[0]} is a link to a file that is not there: fetch the model again"
    held = sorted(path for path in folder.iterdir() if path.is_file())
    for path in held:
        if path.suffix in _OTHER_FRAMEWORKS:
            kind = _OTHER_FRAMEWORKS[path.suffix]
            return f"; {path.name} holds {kind} weights, which are not read: save the model from PyTorch"
    others = [path.name for path in held if path.suffix in _OTHER_NAMES]
    if others:
        return f"; {others[0]} is not a name that transformers reads: save the model with save_pretrained"
    return "; save the model with save_pretrained"


@contextmanager
def open_weights(weights: WeightFiles) -> Iterator[dict[str, Any]]:
    """The tensors by name until the block ends: torch tensors, or slices of safetensors that are read when indexed.

    Packed matrices are unpacked when they are indexed.

    Raises:
        ExportError: a file is damaged or holds something other than tensors, or an index and its files, or two files,
            disagree.
    """
    with ExitStack() as stack:
        tensors: dict[str, Any] = {}
        for path in weights.files:
            held = _safetensors(path, stack) if path.suffix == ".safetensors" else _unpickled(path, "cpu")
            _check_index(weights, path, held)
            _check_once(path, held, tensors)
            tensors |= held
        tensors = {short: tensors[name] for name, short in _names_read(tensors, weights).items()}
        for packed in packed_matrices(tensors, weights.packings):
            own = {name: tensors.pop(name) for name in packed.tensors.values()}
            tensors[packed.name] = UnpackedWeight(packed, own)
        _check_scaled(tensors, packed=bool(weights.packings))
        yield tensors


def tensor_names(weights: WeightFiles) -> list[str]:
    """The names of all tensors, without reading their numbers.

    Raises:
        ExportError: as `open_weights`.
    """
    with ExitStack() as stack:
        names: list[str] = []
        for path in weights.files:
            names += _safetensors(path, stack) if path.suffix == ".safetensors" else _unpickled(path, "meta")
    names = list(_names_read(names, weights).values())
    matrices = packed_matrices(names, weights.packings)
    parts = {name for packed in matrices for name in packed.tensors.values()}
    return [name for name in names if name not in parts] + [packed.name for packed in matrices]


def integers_among(tensors: Mapping[str, Any]) -> list[str]:
    """The names of tensors of whole numbers, or of truths; packed matrices are not among them."""
    return [name for name, tensor in tensors.items() if _kind(tensor).startswith(_INTEGERS)]


def load_tensors(weights: WeightFiles) -> dict[str, torch.Tensor]:
    """All tensors in memory, for small modules.

    Raises:
        ExportError: as `open_weights`.
    """
    with open_weights(weights) as tensors:
        return {name: tensor[...] for name, tensor in tensors.items()}


def _safetensors(path: Path, stack: ExitStack) -> dict[str, Any]:
    _refuse_pointer(path)
    try:
        file = stack.enter_context(safe_open(path, framework="pt"))
        return {name: file.get_slice(name) for name in file.keys()}
    except Exception as error:  # safetensors has errors of its own
        raise ExportError(f"{path} cannot be read: {error}") from error


def _unpickled(path: Path, device: str) -> dict[str, torch.Tensor]:
    _refuse_pointer(path)
    # Only the zip format, which torch has written since 1.6, can stay on disk until a tensor is read.
    on_disk = _is_zip(path) and device != "meta"
    try:
        content = torch.load(path, map_location=device, weights_only=True, mmap=on_disk or None)
    except Exception as error:  # pickle, zipfile and torch each have their own
        raise ExportError(f"{path} {_refusal(error)}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{path} holds a {type(content).__name__}, not tensors by name")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ExportError(
                f"{path} holds {name!r}, a {type(value).__name__}, beside its tensors; save the model with "
                "save_pretrained"
            )
    return content


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_ZIP)) == _ZIP


def _refusal(error: Exception) -> str:
    """One line for an error of `torch.load`, which itself advises to unpickle."""
    message = str(error)
    forbidden = _FORBIDDEN.search(message) if isinstance(error, pickle.UnpicklingError) else None
    if forbidden is not None:
        return (
            f"needs {forbidden[1]}, which is no tensor: a pickle can run code, and this one is not loaded; convert it "
            "to safetensors where you trust it"
        )
    if "TorchScript" in message:
        return "is a TorchScript archive, not a file of weights; save the model with save_pretrained"
    return "is damaged, or not a file of weights; fetch the model again"


def _refuse_pointer(path: Path) -> None:
    """Refuse a Git LFS pointer, which stands for a file that was not fetched."""
    with path.open("rb") as file:
        if b"git-lfs" in file.read(64):
            raise ExportError(f"{path} is a pointer of Git LFS, not the file itself; run git lfs pull")


def _names_read(names: Iterable[str], weights: WeightFiles) -> dict[str, str]:
    """The names of the tensors that say something of the model, without what is put around its own, by their names."""
    unwrapped = unwrapped_names(names)
    return {name: short for name, short in unwrapped.items() if not (weights.packings and _OF_CACHES.search(short))}


def _kind(tensor: Any) -> str:
    """The type of a tensor as its file writes it; empty for a packed matrix."""
    return str(tensor.get_dtype() if hasattr(tensor, "get_dtype") else getattr(tensor, "dtype", ""))


def _check_scaled(tensors: Mapping[str, Any], packed: bool) -> None:
    """Refuse integers, and a quantized checkpoint's 8-bit floats, without a scale: alone they are other numbers."""
    for name, tensor in tensors.items():
        kind = _kind(tensor)
        if name.endswith(".weight") and kind.startswith(_INTEGERS):
            raise ExportError(
                f"{name} is stored in integers, and the config does not say what they stand for "
                "(quantization_config); give the checkpoint that it was made from"
            )
        if packed and kind.startswith(_FLOATS_OF_8_BITS):
            raise ExportError(
                f"{name} is stored in 8-bit floats, and no scale that is known comes with it; fetch the model again, "
                "or give the checkpoint that it was made from"
            )


def _check_once(path: Path, held: dict[str, Any], before: dict[str, Any]) -> None:
    """Refuse a tensor that two shards have with different numbers: which of them is meant cannot be known."""
    for name in sorted(held.keys() & before.keys()):
        one, other = before[name][...], held[name][...]
        if one.dtype != other.dtype or not torch.equal(one, other):
            raise ExportError(
                f"{path} holds {name} with other numbers than another file of {path.parent} does; fetch the model again"
            )


def _check_index(weights: WeightFiles, path: Path, held: dict[str, Any]) -> None:
    if not weights.listed:
        return
    listed = {name for name, file in weights.listed.items() if file == path.name}
    for missing in sorted(listed - set(held)):
        raise ExportError(f"{path} lacks {missing}, which its index says it holds; fetch the model again")
    for extra in sorted(set(held) - set(weights.listed)):
        raise ExportError(f"{path} holds {extra}, which its index does not name; save the model again")
