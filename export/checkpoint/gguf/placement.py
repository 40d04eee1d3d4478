"""Finds the tensor, and the order of its rows, for each parameter of a model."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.container import GgufFile, Tensor
from triform.export.checkpoint.gguf.rope import FREQUENCIES, LONG, SHORT
from triform.export.checkpoint.gguf.row_orders import Order, grouped_rows, order_of, turned_rows
from triform.runtime.errors import ExportError

_LAYER = re.compile(r"^((?:enc\.|dec\.)?blk)\.(\d+)\.")
_PACKED, _SEPARATE = "blk.{}.attn_qkv", ("blk.{}.attn_q", "blk.{}.attn_k", "blk.{}.attn_v")
# How many layers only guess a second token.
NEXT_TOKENS = "nextn_predict_layers"
_TURNED = ("blk.{}.attn_q", "blk.{}.attn_k")


@dataclass(frozen=True)
class Placement:
    """Where a parameter's numbers are in the file.

    Attributes:
        tensor: the tensor that has them.
        rows: the rows in the parameter's order, those of the second tensor behind the first's; None for their own.
        second: another tensor, whose rows are behind those of the first, in each expert or head if there are any.
        columns: the columns in the parameter's order; None for their own.
    """

    tensor: Tensor
    rows: Order | None = None
    second: Tensor | None = None
    columns: Order | None = None

    @property
    def stored(self) -> Tensor:
        """The tensor, if there is no second one, with only these rows and all columns in their own order."""
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
        heads: numbers of rows of the queries, keys and values ("q", "k", "v"), and of a head ("head"); and those that
            `order_of` takes.

    Raises:
        ExportError: the architecture does not use a tensor; the error names it.
    """
    placed: dict[str, Placement] = {}
    unknown = []
    for name, tensor in file.tensors.items():
        if _is_left_out(name, file, architecture):
            continue
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
    return {target: _ordered(placement, architecture, heads) for target, placement in placed.items()}


def further_layers(file: GgufFile, architecture: Architecture) -> range:
    """The numbers of the layers that only guess a second token; transformers' models do not have them."""
    layers = int(file.values.get(f"{file.architecture}.block_count", 0))
    further = int(file.values.get(f"{file.architecture}.{NEXT_TOKENS}", 0)) if architecture.next_tokens else 0
    return range(layers - further, layers)


def _is_left_out(name: str, file: GgufFile, architecture: Architecture) -> bool:
    if _stem(name)[0] in architecture.dense:
        return True
    layer = _LAYER.match(name)
    return layer is not None and int(layer[2]) in further_layers(file, architecture)


def _joined(one: Placement, other: Placement, architecture: Architecture) -> Placement:
    """Two tensors as one parameter, in the order of the architecture's table, which may not be that of the file."""
    order = list(architecture.tensors)
    first, second = sorted((one.tensor, other.tensor), key=lambda tensor: order.index(_stem(tensor.name)[0]))
    return Placement(first, second=second)


def _ordered(placement: Placement, architecture: Architecture, heads: Mapping[str, int]) -> Placement:
    """A placement with the order of rows and columns that the architecture has for the tensor."""
    tensor, second = placement.tensor, placement.second
    stem, _, _ = _stem(tensor.name)
    rows, columns = placement.rows, placement.columns
    if stem in architecture.row_orders:
        count = tensor.shape[0] + (second.shape[0] if second else 0)
        rows = order_of(architecture.row_orders[stem], count, heads)
    if stem in architecture.column_orders:
        columns = order_of(architecture.column_orders[stem], tensor.shape[-1], heads)
    return Placement(tensor, rows, second, columns)


def _stem(name: str) -> tuple[str, str, str]:
    """A tensor's name with {} for its layer and without its kind, the layer, and the kind (weight, bias or none)."""
    stem, _, kind = name.rpartition(".")
    if kind not in ("weight", "bias"):
        stem, kind = name, ""
    layer = _LAYER.match(name)
    if layer is None:
        return stem, "", kind
    return f"{layer[1]}.{{}}.{stem[layer.end() :]}", layer[2], kind


def _is_of_rope(name: str, architecture: Architecture) -> bool:
    """Whether the rotary embedding is made with a tensor."""
    used = architecture.frequency_factors or architecture.rotated_share
    return name in (LONG, SHORT) or (name == FREQUENCIES and used)


def _placed(
    name: str, tensor: Tensor, architecture: Architecture, heads: Mapping[str, int]
) -> Iterator[tuple[str, Placement]]:
    stem, index, kind = _stem(name)
    if not kind:
        if stem in architecture.bare:
            yield architecture.bare[stem].format(index), Placement(tensor)
        return
    if stem == _PACKED and stem not in architecture.tensors and heads:
        start = 0
        for part, own in zip("qkv", _SEPARATE, strict=True):
            turned = architecture.permuted and own in _TURNED
            share = turned_rows(start, heads[part], heads["head"]) if turned else np.arange(start, start + heads[part])
            yield f"{architecture.tensors[own].format(index)}.{kind}", Placement(tensor, share)
            start += heads[part]
        return
    target = architecture.tensors.get(stem)
    if target is None:
        return
    if "{}" in target and not index:
        # A matrix for each of several parameters.
        for place in range(tensor.shape[0]):
            yield f"{target.format(place)}.{kind}", Placement(tensor, np.array([place]))
        return
    if architecture.grouped and stem == _PACKED:
        yield f"{target.format(index)}.{kind}", Placement(tensor, grouped_rows(tensor.shape[0], heads))
        return
    turned = architecture.permuted and stem in _TURNED
    rows = turned_rows(0, tensor.shape[0], heads["head"]) if turned else None
    yield f"{target.format(index)}.{kind}", Placement(tensor, rows)
