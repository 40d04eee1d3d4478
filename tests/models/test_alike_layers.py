from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch

from triform.models.alike_layers import AlikeLayers, watched_layers

LAYERS = 7


class Layer(torch.nn.Module):
    def __init__(self, factor: float = 2.0, width: int = 5) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(3, width), torch.nn.Linear(width, 3)
        self.factor = factor

    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(x) * self.factor)) * table


class Stack(torch.nn.Module):
    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x, table = x + 1, torch.arange(3.0) + 1
        for layer in self.layers:
            x = layer(x, table)
        return x.tanh()


class Sum(Stack):
    """Adds up what all layers gave."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        results = [x]
        for layer in self.layers:
            results.append(layer(results[-1], torch.ones(3)))
        return torch.stack(results).sum(0)


class ByIndex(Stack):
    """Its layers do not know by what they are multiplied."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tables = torch.ones(3), torch.arange(3.0)
        for index, layer in enumerate(self.layers):
            x = layer(x, tables[index % 3 == 2])
        return x


def alike(model: torch.nn.Module) -> AlikeLayers | None:
    with torch.no_grad(), watched_layers(model) as watch:
        model(torch.randn(2, 3))
    return watch.alike()


def test_that_layers_with_other_weights_are_alike_but_for_the_first_which_reads_no_layer() -> None:
    found = alike(Stack([Layer() for _ in range(LAYERS)]))
    assert found is not None
    assert found.first_alike == (0, 1, 1, 1, 1, 1, 1)
    assert found.traced == 2


@pytest.mark.parametrize("other", [lambda: Layer(factor=2.5), lambda: Layer(width=4)], ids=["number", "size"])
def test_that_a_layer_with_another_number_or_size_is_of_its_own_kind(other: Callable[[], Layer]) -> None:
    found = alike(Stack([other() if index in (2, 5) else Layer() for index in range(LAYERS)]))
    assert found is not None
    assert found.first_alike == (0, 1, 2, 1, 1, 2, 1)


def test_that_layers_which_read_other_tensors_of_the_same_shape_differ() -> None:
    found = alike(ByIndex([Layer() for _ in range(LAYERS)]))
    assert found is not None
    assert found.first_alike == (0, 1, 2, 1, 1, 2, 1)


def test_that_layers_differ_where_something_else_happens_while_they_run() -> None:
    model, facts = Stack([Layer() for _ in range(LAYERS)]), list[str]()
    for index, layer in enumerate(model.layers):
        fact = "a window" if index == 3 else "no window"
        layer.up.register_forward_hook(lambda *_, fact=fact: facts.append(fact))
    with torch.no_grad(), watched_layers(model, facts) as watch:
        model(torch.randn(2, 3))
    found = watch.alike()
    assert found is not None
    assert found.first_alike == (0, 1, 1, 3, 1, 1, 1)


def test_that_what_a_layer_computes_is_not_kept() -> None:
    model, seen = Stack([Layer() for _ in range(LAYERS)]), list[weakref.ref[torch.Tensor]]()
    for layer in model.layers:
        layer.up.register_forward_hook(lambda _, __, result: seen.append(weakref.ref(result)))
    with torch.no_grad(), watched_layers(model) as watch:
        model(torch.randn(2, 3))
    assert watch.alike() is not None
    assert [tensor() for tensor in seen] == [None] * LAYERS


def test_that_a_model_whose_end_reads_all_layers_has_none() -> None:
    assert alike(Sum([Layer() for _ in range(LAYERS)])) is None


def test_that_layers_of_shared_weights_are_not_told_apart_by_them() -> None:
    layer = Layer()
    assert alike(Stack([layer] * LAYERS)) is None
    layers = [Layer() for _ in range(LAYERS)]
    layers[4].up = layers[2].up
    assert alike(Stack(layers)) is None


@pytest.mark.parametrize(("count", "known"), [(4, False), (5, True)])
def test_that_three_layers_must_be_saved(count: int, known: bool) -> None:
    assert (alike(Stack([Layer() for _ in range(count)])) is not None) == known


def test_that_a_model_without_layers_has_none() -> None:
    assert alike(torch.nn.Linear(3, 3)) is None


def test_that_a_shortened_list_is_whole_again_after_an_error() -> None:
    model = Stack([Layer() for _ in range(LAYERS)])
    before = list(model.layers)
    found = alike(model)
    assert found is not None
    with pytest.raises(RuntimeError), found.shortened():
        assert list(model.layers) == before[:2]
        raise RuntimeError
    assert list(model.layers) == before
    assert list(model.state_dict()) == list(Stack(before).state_dict())
