"""Finds the layers of a model that compute the same with other weights, so that one of them needs to be traced.

Two layers are alike if they call the same operators in the same order, with the same numbers, on tensors of the same
shapes that come from the same places: the layer before, the layer's own weights, or what all layers read. That is
watched while the model runs, so that neither names nor configs are trusted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

# A trace that leaves out fewer layers saves too little.
_FEWEST_SAVED = 3
# Those that watch the model that runs.
_watching: list[LayerWatch] = []


@dataclass(frozen=True)
class AlikeLayers:
    """The layers of a model, each with the first one that it is like.

    Attributes:
        layers: the list of them in the model.
        first_alike: for each layer, the first layer that computes the same, which may be itself.
        constants: for each layer, the tensors that it reads from elsewhere, but for its parameters and what the layer
            before gives, in the order that it reads them; those of layers that are alike correspond.
    """

    layers: torch.nn.ModuleList
    first_alike: tuple[int, ...]
    constants: tuple[tuple[torch.Tensor, ...], ...]

    @property
    def traced(self) -> int:
        """How many of the first layers have all kinds of layers among them."""
        return max(self.first_alike) + 1

    @property
    def left_out(self) -> range:
        """Indices of the layers behind these, which need not be traced."""
        return range(self.traced, len(self.layers))

    @contextmanager
    def shortened(self) -> Iterator[None]:
        """While the block runs, the list holds the layers to trace only."""
        modules = self.layers._modules
        left_out = {name: modules.pop(name) for name in list(modules)[self.traced :]}
        try:
            yield
        finally:
            modules.update(left_out)


@contextmanager
def watched_layers(model: torch.nn.Module, facts: Sequence[Hashable] = ()) -> Iterator[LayerWatch]:
    """Watch the layers of a model that runs once in the block, on tensors and without gradients.

    Args:
        model: its longest list of modules is taken for its layers.
        facts: what the run adds to it while a layer runs is compared too.
    """
    lists = (module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    watch = LayerWatch(max(lists, key=len, default=torch.nn.ModuleList()), facts)
    _watching.append(watch)
    try:
        with watch.hooked(), watch:
            yield watch
    finally:
        _watching.remove(watch)


def as_one_operator(
    kind: Hashable, tensors: Sequence[torch.Tensor], compute: Callable[[], torch.Tensor]
) -> torch.Tensor:
    """Compute what calls other operators for other numbers, and yet is the same: one operator to those that watch.

    Args:
        kind: what tells it from others.
        tensors: all that it reads.
        compute: gives its result.
    """
    for watch in _watching:
        compute = partial(watch.see_one, kind, tensors, compute)
    return compute()


class LayerWatch(TorchDispatchMode):
    """Writes down what each layer of a model computes while it is entered and hooked."""

    def __init__(self, layers: torch.nn.ModuleList, facts: Sequence[Hashable]) -> None:
        """Take the layers, and what else is compared; see `watched_layers`."""
        super().__init__()
        self._layers, self._facts = layers, facts
        # The indices of the layers as they ran; for each layer the operators that it called, and see `AlikeLayers`.
        self._order: list[int] = []
        self._calls: list[list[Hashable]] = [[] for _ in layers]
        self._constants: list[list[torch.Tensor]] = [[] for _ in layers]
        # Where a tensor comes from, for the layer that runs; begins with the number of the operator if that is the
        # layer's own. Weak: all that a model computes need not fit into memory.
        self._origins = WeakTensorKeyDictionary()
        # Of what was computed: its number, and whether a layer did it.
        self._computed = WeakTensorKeyDictionary()
        self._numbers = itertools.count()
        self._running: int | None = None
        self._facts_before = 0
        # Whether something but the next layer reads what a layer computed.
        self._branches = False
        # Whether operators are part of one that was written down.
        self._inside_one = False

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """While the block runs, each layer says when it begins and ends."""
        hooks = []
        for index, layer in enumerate(self._layers):
            hooks.append(layer.register_forward_pre_hook(self._begins(index)))
            hooks.append(layer.register_forward_hook(self._ends))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def alike(self) -> AlikeLayers | None:
        """The layers that are alike; None where a trace could leave out too few, or where layers share weights."""
        weights = [id(weight) for layer in self._layers for weight in layer.parameters()]
        each_once = self._order == list(range(len(self._layers))) and len(weights) == len(set(weights))
        if not each_once or self._branches or len(self._layers) <= _FEWEST_SAVED:
            return None
        first_alike = tuple(self._calls.index(calls) for calls in self._calls)
        alike = AlikeLayers(self._layers, first_alike, tuple(map(tuple, self._constants)))
        return alike if len(self._layers) - alike.traced >= _FEWEST_SAVED else None

    def _begins(self, index: int) -> Callable[..., None]:
        def begin(layer: torch.nn.Module, _: Any) -> None:
            self._order.append(index)
            self._running, self._facts_before = index, len(self._facts)
            for name, tensor in (*layer.named_parameters(), *layer.named_buffers()):
                self._origins[tensor] = "its own", name

        return begin

    def _ends(self, _: torch.nn.Module, __: Any, result: Any) -> None:
        if self._running is not None:
            self._calls[self._running].append(tuple(self._facts[self._facts_before :]))
        self._running = None
        before, self._origins = self._origins, WeakTensorKeyDictionary()
        for place, tensor in enumerate(_tensors_in(result)):
            # What the layer was given and passes on is the same to all layers that read it.
            if isinstance(before.get(tensor, (None,))[0], int):
                self._origins[tensor] = "the layer before", place

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator, and write it down if a layer calls it."""
        kwargs = kwargs or {}
        if self._inside_one:
            return func(*args, **kwargs)
        leaves, structure = tree_flatten((args, dict(kwargs)))
        return self._written((func, str(structure)), leaves, lambda: func(*args, **kwargs))

    def see_one(
        self, kind: Hashable, tensors: Sequence[torch.Tensor], compute: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """Write down all that `compute` calls as one operator; see `as_one_operator`."""

        def compute_unseen() -> torch.Tensor:
            before, self._inside_one = self._inside_one, True
            try:
                return compute()
            finally:
                self._inside_one = before

        if self._inside_one:
            return compute()
        result: torch.Tensor = self._written(kind, tensors, compute_unseen)
        return result

    def _written(self, kind: Hashable, leaves: Sequence[Any], compute: Callable[[], Any]) -> Any:
        # Described before it runs: it may change what it reads.
        described = self._running is not None and tuple(self._described(leaf) for leaf in leaves)
        self._branches |= self._running is None and any(map(self._is_of_older_layer, leaves))
        result = compute()
        results = _tensors_in(result)
        for item in results:
            self._computed[item] = next(self._numbers), self._running is not None
        if self._running is not None:
            calls = self._calls[self._running]
            for place, item in enumerate(results):
                self._origins[item] = len(calls), place
            calls.append((kind, described, tuple(_form(item) for item in results)))
        return result

    def _is_of_older_layer(self, leaf: Any) -> bool:
        """Whether a layer computed it that is not the last one that ran."""
        if not isinstance(leaf, torch.Tensor) or leaf in self._origins:
            return False
        _, of_layer = self._computed.get(leaf, (None, False))
        return bool(of_layer)

    def _described(self, leaf: Any) -> Hashable:
        """An argument as it is compared: a number as itself, a tensor by where it comes from."""
        if not isinstance(leaf, torch.Tensor):
            return type(leaf), leaf
        return self._origin(leaf), _form(leaf)

    def _origin(self, tensor: torch.Tensor) -> Hashable:
        if tensor not in self._origins:
            self._origins[tensor] = self._origin_elsewhere(tensor)
        origin: Hashable = self._origins[tensor]
        return origin

    def _origin_elsewhere(self, tensor: torch.Tensor) -> Hashable:
        number, _ = self._computed.get(tensor, (None, False))
        if number is None and tensor.numel() == 1:
            return "number", tensor.item()
        constants = self._constants[self._order[-1]]
        constants.append(tensor)
        # What is computed outside the layers, or in one further back, must be the same tensor.
        return ("constant", len(constants)) if number is None else ("computed", number)


def _tensors_in(results: Any) -> list[torch.Tensor]:
    return [item for item in tree_leaves(results) if isinstance(item, torch.Tensor)]


def _form(tensor: torch.Tensor) -> Hashable:
    return tensor.dtype, tuple(tensor.shape), tensor.stride()
