"""Lets a model compute in float32 with weights that stay in the type, and in the file, that they are stored in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._pytree import tree_map

_aten = torch.ops.aten
# What only looks at a matrix in another way.
_VIEWS = {
    _aten.alias.default, _aten.detach.default, _aten.slice.Tensor, _aten.t.default, _aten.transpose.int,
}  # fmt: skip
# Numbers to convert at once: few enough to stay in the caches until they are multiplied.
_AT_ONCE = 2**20
_NARROW = (torch.bfloat16, torch.float16)


class StoredWeight(torch.Tensor):
    """A float32 tensor to those who compute with it, converted from what is stored each time it is read.

    Products convert some columns at a time, and lookups only the rows that they return.

    Attributes:
        stored: the numbers, such as bfloat16 or float16; may be mapped from a file.
    """

    stored: torch.Tensor

    @staticmethod
    def __new__(cls: type[StoredWeight], stored: torch.Tensor) -> StoredWeight:
        """Take the shape from what is stored."""
        made: StoredWeight = torch.Tensor._make_wrapper_subclass(
            cls, stored.shape, strides=stored.stride(), dtype=torch.float32, device=stored.device
        )
        return made

    def __init__(self, stored: torch.Tensor) -> None:
        self.stored = stored

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch declares a stub of another form
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator of PyTorch on float32 copies of the stored weights among its arguments.

        Raises:
            TypeError: the operator would change a stored weight.
        """
        kwargs = kwargs or {}
        first = args[0] if args else None
        if isinstance(first, StoredWeight):
            if func in _VIEWS:
                return StoredWeight(func(first.stored, *args[1:], **kwargs))
            if func is _aten.embedding.default:
                return first.stored[args[1]].float()
            if func._schema.is_mutable:
                raise TypeError(f"{func} changes a weight that is only read")
        if func in (_aten.mm.default, _aten.addmm.default) and isinstance(args[-1], StoredWeight) and not kwargs:
            return _product(*args)
        return func(*tree_map(_widened, args), **tree_map(_widened, dict(kwargs)))


def _widened(value: Any) -> Any:
    return value.stored.float() if isinstance(value, StoredWeight) else value


def _product(*args: Any) -> torch.Tensor:
    """The product of the last two arguments, the second of which is stored, plus the one before them, if any."""
    *bias, x = (_widened(value) for value in args[:-1])
    weight = args[-1].stored
    rows, columns = weight.shape
    if weight.stride(0) > weight.stride(1):
        # As gradients need it. What is stored in blocks cannot be read by columns.
        result, step = torch.zeros(x.shape[0], columns), max(1, _AT_ONCE // max(1, columns))
        for start in range(0, rows, step):
            result.addmm_(x[:, start : start + step], weight[start : start + step].float())
    else:
        result, step = torch.empty(x.shape[0], columns), max(1, _AT_ONCE // max(1, rows))
        for start in range(0, columns, step):
            result[:, start : start + step] = x @ weight[:, start : start + step].float()
    return result + bias[0] if bias else result


def stored_weight(tensor: torch.Tensor) -> torch.Tensor:
    """A matrix of 16-bit floats as a `StoredWeight`; any other tensor as it is."""
    return StoredWeight(tensor) if tensor.dim() == 2 and tensor.dtype in _NARROW else tensor


@contextmanager
def untouched_weights(module: torch.nn.Module) -> Iterator[dict[int, torch.Tensor]]:
    """While the block runs, each stored weight is a float32 parameter of memory that nobody has touched.

    It takes no memory until somebody reads or writes it. So a module can be traced, which looks at shapes only.

    Yields:
        what is stored, by the address of the memory that stands for it.
    """
    stand_ins: dict[int, torch.nn.Parameter] = {}
    stored: dict[int, torch.Tensor] = {}
    places: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []
    for owner in module.modules():
        for name, weight in owner._parameters.items():
            if not isinstance(weight, StoredWeight):
                continue
            if id(weight) not in stand_ins:
                empty = torch.empty_strided(weight.shape, weight.stride(), dtype=torch.float32)
                stand_ins[id(weight)] = torch.nn.Parameter(empty, requires_grad=False)
                stored[empty.data_ptr()] = weight.stored
            places.append((owner, name, weight))
    try:
        for owner, name, weight in places:
            owner._parameters[name] = stand_ins[id(weight)]
        yield stored
    finally:
        for owner, name, weight in places:
            owner._parameters[name] = weight
