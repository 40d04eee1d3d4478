from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from triform.models.alike_layers import AlikeLayers, as_one_operator, watched_layers

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


class Passing(torch.nn.Module):
    """The first layer computes a table, and every layer passes it on with its result."""

    def __init__(self, *, changed_by: int | None = None) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))
        for index, layer in enumerate(self.layers):
            layer.register_forward_hook(self._with_table(index in (0, changed_by)))

    @staticmethod
    def _with_table(computed: bool) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
        def add(_: torch.nn.Module, given: tuple[torch.Tensor, ...], result: torch.Tensor) -> Any:
            return result, given[1] * 2 if computed else given[1]

        return add

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        table = torch.ones(3)
        for layer in self.layers:
            x, table = layer(x, table)
        return x


class Choosing(Layer):
    """Computes positive and negative rows apart, where there are any; `as_one` says so."""

    as_one = True

    def forward(self, x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        def compute() -> torch.Tensor:
            result, signs = torch.zeros_like(x), (x @ self.up.weight[0]).sign()
            for sign in signs.unique().tolist():
                rows = torch.nonzero(signs == sign)[:, 0]
                result[rows] = self.down(torch.relu(self.up(x[rows]) * sign))
            return result

        seen = (x, *self.parameters())
        return x + (as_one_operator(("rows by sign", self.factor), seen, compute) if self.as_one else compute()) * table


def alike(model: torch.nn.Module, rows: int = 2) -> AlikeLayers | None:
    with torch.no_grad(), watched_layers(model) as watch:
        model(torch.randn(rows, 3))
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


def test_that_what_a_layer_only_passes_on_is_the_same_to_all_that_read_it() -> None:
    found = alike(Passing())
    assert found is not None
    # To the layer behind it, the first one gives two values.
    assert found.first_alike == (0, 1, 2, 2, 2, 2, 2)


def test_that_layers_which_read_another_table_than_those_before_differ() -> None:
    found = alike(Passing(changed_by=1))
    assert found is not None
    assert found.first_alike == (0, 1, 2, 3, 3, 3, 3)


def rows_by_sign(**kinds: Any) -> AlikeLayers | None:
    """Of layers that each see another number of positive rows."""
    torch.manual_seed(0)
    layers = [Choosing(**{name: values[index] for name, values in kinds.items()}) for index in range(LAYERS)]
    return alike(Stack(layers), rows=20)


def test_that_what_depends_on_numbers_is_one_operator_where_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows_by_sign()
    assert found is not None
    assert found.first_alike == (0, 1, 1, 1, 1, 1, 1)
    monkeypatch.setattr(Choosing, "as_one", False)
    assert rows_by_sign() is None


def test_that_one_operator_of_another_kind_or_on_other_weights_differs() -> None:
    found = rows_by_sign(factor=[1, 1, 1, 2, 1, 1, 1])
    assert found is not None
    assert found.first_alike == (0, 1, 1, 3, 1, 1, 1)
    found = rows_by_sign(width=[5, 5, 5, 4, 5, 5, 5])
    assert found is not None
    assert found.first_alike == (0, 1, 1, 3, 1, 1, 1)


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
