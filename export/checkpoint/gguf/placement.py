"""Finds the tensor, and the order of its rows, for each parameter of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.container import GgufFile, Tensor
from triform.export.checkpoint.gguf.rope import FREQUENCIES, LONG, SHORT
from triform.runtime.errors import ExportError

_LAYER = re.compile(r"^blk\.(\d+)\.")
_PACKED, _SEPARATE = "blk.{}.attn_qkv", ("blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v")
_TURNED = ("blk.{}.attn_q", "blk.{}.attn_k")


@dataclass(frozen=True)
class Placement:
    """Where a parameter's numbers are in the file.

    Attributes:
        tensor: the tensor that has them.
        rows: the tensor's rows in the parameter's order; None for all rows in their own order.
        second: another tensor, whose rows are behind those of the first, in each expert if there are experts.
    """

    tensor: Tensor
    rows: NDArray[np.int64] | None = None
    second: Tensor | None = None

    @property
    def stored(self) -> Tensor:
        """The tensor with only these rows."""
        if self.rows is None:
            return self.tensor
        shape = (len(self.rows), *self.tensor.shape[1:])
        data = self.tensor.data
        if len(self.tensor.shape) == 1:
            # The rows of a vector are its elements, each of a whole number of bytes.
            data = data.reshape(self.tensor.shape[0], -1)[self.rows].reshape(-1)
            return Tensor(self.tensor.name, self.tensor.format, shape, data)
        return Tensor(self.tensor.name, self.tensor.format, shape, data[self.rows])


def place(file: GgufFile, architecture: Architecture, heads: Mapping[str, int]) -> dict[str, Placement]:
    """Find the numbers of all parameters, by the parameters' names.

    Args:
        file: the file, all of whose tensors must be used.
        architecture: the file's architecture.
        heads: numbers of rows of the queries, keys and values ("q", "k", "v"), and of a head ("head").

    Raises:
        ExportError: the architecture does not use a tensor; the error names it.
    """
    placed: dict[str, Placement] = {}
    unknown = []
    for name, tensor in file.tensors.items():
        placements = dict(_placed(name, tensor, architecture, heads))
        for target, placement in placements.items():
            placed[target] = _joined(placed[target], placement, architecture) if target in placed else placement
        if not placements and not _is_of_rope(name, architecture):
            unknown.append(name)
    if unknown:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        raise ExportError(
            f"{file.path.name} has tensors that a model of {file.architecture} does not read and that would be lost: "
            f"{', '.join(sorted(unknown)[:3])}{more}"
        )
    return placed


def _joined(one: Placement, other: Placement, architecture: Architecture) -> Placement:
    """Two tensors as one parameter, in the order of the architecture's table, which may not be that of the file."""
    order = list(architecture.tensors)
    first, second = sorted((one.tensor, other.tensor), key=lambda tensor: order.index(_stem(tensor.name)[0]))
    return Placement(first, second=second)


def _stem(name: str) -> tuple[str, str, str]:
    """A tensor's name with {} for its layer and without its kind, the layer, and the kind (weight, bias or none)."""
    stem, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        stem, kind = name, ""
    layer = _LAYER.match(name)
    if layer is None:
        return stem, "", kind
    return f"blk.{{}}.{stem[layer.end() :]}", layer[1], kind


def _is_of_rope(name: str, architecture: Architecture) -> bool:
    """Whether `rope` reads a tensor."""
    return name in (LONG, SHORT) or (name == FREQUENCIES and architecture.frequency_factors)


def _placed(
    name: str, tensor: Tensor, architecture: Architecture, heads: Mapping[str, int]
) -> Iterator[tuple[str, Placement]]:
    stem, index, kind = _stem(name)
    if not kind:
        if stem in architecture.bare:
            yield architecture.bare[stem].format(index), Placement(tensor)
        return
    if stem == _PACKED and stem not in architecture.tensors:
        start = 0
        for part, own in zip("qkv", _SEPARATE, strict=True):
            share = _rows(own, start, heads[part], architecture, heads["head"])
            yield f"{architecture.tensors[own].format(index)}.{kind}", Placement(tensor, share)
            start += heads[part]
        return
    target = architecture.tensors.get(stem)
    if target is None:
        return
    if architecture.grouped and stem == _PACKED:
        yield f"{target.format(index)}.{kind}", Placement(tensor, _grouped_rows(tensor.shape[0], heads))
        return
    turned = architecture.permuted and stem in _TURNED
    rows = _rows(stem, 0, tensor.shape[0], architecture, heads["head"]) if turned else None
    yield f"{target.format(index)}.{kind}", Placement(tensor, rows)


def _rows(stem: str, start: int, count: int, architecture: Architecture, head_dim: int) -> NDArray[np.int64]:
    """The rows of a tensor in transformers' order; llama.cpp's has the two rows of each rotated pair side by side."""
    rows = np.arange(start, start + count)
    if architecture.permuted and stem in _TURNED and count % head_dim == 0:
        rows = rows.reshape(-1, head_dim // 2, 2).swapaxes(1, 2).reshape(-1)
    return rows


def _grouped_rows(count: int, heads: Mapping[str, int]) -> NDArray[np.int64] | None:
    """The rows of queries, keys and values in groups: the queries of a group, then its keys, then its values."""
    query, key, head = heads["q"], heads["k"], heads["head"]
    if count != query + 2 * key:
        return None
    groups = (-1, query // key, head), (-1, 1, head), (-1, 1, head)
    parts = np.split(np.arange(count), (query, query + key))
    return np.concatenate([part.reshape(group) for part, group in zip(parts, groups, strict=True)], axis=1).reshape(-1)
