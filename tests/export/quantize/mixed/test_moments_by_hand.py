"""Moments of products, tables and experts, against gradients that PyTorch gives for the same numbers."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from triform.export.quantize.mixed import moments as module
from triform.export.quantize.mixed.moments import drawn_likelihood, measure, predictions, product_modules

WINDOWS = [torch.tensor([[0, 3, 3]]), torch.tensor([[4, 1]])]


class Scaled(torch.nn.Embedding):
    """Multiplies what it looks up, as Gemma's."""

    def forward(self, ids):
        return 3 * super().forward(ids)


class Router(torch.nn.Module):
    """Gives more than a product."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, 3))

    def forward(self, x):
        return x @ self.weight.T, None


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.places = Scaled(5, 3), torch.nn.Embedding(2, 3)
        self.first, self.second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)
        self.router, self.norm = Router(), torch.nn.LayerNorm(4)

    def get_input_embeddings(self):
        return self.table

    def forward(self, ids):
        rows = self.table(ids)
        self.router(rows)
        return self.second(torch.tanh(self.norm(self.first(rows + self.places(ids % 2)))))


def factors(index):
    return torch.randn(2, generator=torch.Generator().manual_seed(index))


def losses(model):
    for index, ids in enumerate(WINDOWS):
        yield (model(ids) * factors(index)).sum()


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_products_and_tables_are_measured(tmp_path):
    model, count = Tiny(), 7
    inputs, outputs, table = (torch.zeros(3, 3), torch.zeros(4, 4)), (torch.zeros(4), torch.zeros(2)), torch.zeros(3)
    routed = torch.zeros(3)
    for index, ids in enumerate(WINDOWS):
        rows = model.table.weight[ids[0]].detach().requires_grad_(True)
        x = 3 * rows + model.places.weight[ids[0] % 2]
        first = model.first(x)
        hidden = torch.tanh(model.norm(first))
        second = model.second(hidden)
        gradients = torch.autograd.grad((second * factors(index)).sum(), [first, second, rows])
        for known, weight, gradient in zip(inputs, (x, hidden), gradients, strict=False):
            weight = weight.detach()
            known += sum(g.square().sum() * torch.outer(w, w) for w, g in zip(weight, gradient, strict=True)) / count
        for known, gradient in zip(outputs, gradients, strict=False):
            known += gradient.square().sum(0) / count
        table += gradients[2].square().sum(0) / count
        routed += (3 * rows).detach().square().sum(0)
    found = measure(model, product_modules(model), losses(model), count, tmp_path)
    for place, layer in enumerate((model.first, model.second)):
        close(found.products[id(layer.weight)].inputs, inputs[place])
        close(found.products[id(layer.weight)].outputs, outputs[place])
    assert len(found.products) == 2 and not any(parameter.requires_grad for parameter in model.parameters())
    # The constant that a table's rows are multiplied by is known on average.
    close(found.embedding, table)
    assert list(found.tables) == [id(model.table.weight)]
    close(found.routers[id(model.router.weight)], routed)
    # Nothing stays behind on the model.
    assert not any(part._forward_hooks for part in model.modules())


def test_modules_with_a_matrix_that_is_multiplied_by():
    model = torch.nn.ModuleDict(
        {"linear": torch.nn.Linear(2, 3), "table": torch.nn.Embedding(2, 3), "norm": torch.nn.LayerNorm(3),
         "conv": torch.nn.Conv1d(2, 3, 1), "none": torch.nn.LayerNorm(3, elementwise_affine=False)}
    )  # fmt: skip
    assert product_modules(model) == [model["linear"]]


def table_model(sizes, first=None):
    model = torch.nn.Module()
    model.tables = torch.nn.ModuleList(torch.nn.Embedding(size, 2) for size in sizes)

    def get_input_embeddings():
        if first is None:
            raise NotImplementedError
        return model.tables[first]

    model.get_input_embeddings = get_input_embeddings
    return model


@pytest.mark.parametrize(
    ("sizes", "first", "expected"),
    [
        ([10, 5, 4], 0, [0, 1]), ([10, 5, 4], None, [0, 1]), ([10, 5, 4], 1, [1, 0, 2]), ([10], 0, [0]), ([], None, []),
        ([9, 5, 4], 0, [0, 1]),
    ],
)  # fmt: skip
def test_tables_of_tokens_have_half_as_many_rows_at_least(sizes, first, expected):
    model = table_model(sizes, first)
    assert module._token_embeddings(model) == [model.tables[index] for index in expected]


@pytest.mark.parametrize(
    ("ids", "shape", "expected"),
    [
        ([[0, 4]], (1, 2, 3), True), ([[0, 5]], (1, 2, 3), False), ([[-1, 0]], (1, 2, 3), False),
        ([[0.0, 1.0]], (1, 2, 3), False), ([[0, 4]], (2, 3), False), ([[0, 4]], (1, 2, 4), False),
        (None, (1, 2, 3), False),
    ],
)  # fmt: skip
def test_what_is_looked_up(ids, shape, expected):
    given = 4 if ids is None else torch.tensor(ids)
    assert module._are_looked_up(given, torch.zeros(5, 3), torch.zeros(shape)) == expected


def test_experts_are_measured_by_what_each_was_given():
    experts, weights, draw = {}, torch.zeros(3, 2, 4), torch.Generator().manual_seed(1)
    watch = module._expert_watcher(experts, 5)
    inputs, outputs = torch.zeros(3, 4), torch.zeros(3, 2)
    for expert, tokens in ((0, 2), (2, 3), (0, 1)):
        rows, gradient = torch.randn(tokens, 4, generator=draw), torch.randn(tokens, 2, generator=draw)
        inputs[expert] += sum(g.square().sum() * row.square() for row, g in zip(rows, gradient, strict=True)) / 5
        outputs[expert] += gradient.square().sum(0) / 5
        (watch(weights, expert, rows, torch.ones(tokens, 2)) * gradient).sum().backward()
    close(experts[id(weights)].inputs, inputs)
    close(experts[id(weights)].outputs, outputs)
    with torch.no_grad():
        product = torch.ones(1, 2)
        assert watch(weights, 1, torch.ones(1, 4), product) is product


def test_the_likelihood_of_what_is_drawn():
    """Where one token is certain it is drawn, and has a likelihood of 1; a draw between two equal ones has a half."""
    certain = torch.tensor([[100.0, 0, 0], [0, 0, 100.0]])
    assert float(drawn_likelihood(certain, torch.Generator().manual_seed(0))) == pytest.approx(0, abs=1e-6)
    equal = torch.tensor([[5.0, 5.0, -100], [-100, 2.0, 2.0], [1.0, -100, 1.0]])
    assert float(drawn_likelihood(equal, torch.Generator().manual_seed(0))) == pytest.approx(-3 * 0.6931472)
    drawn = {float(drawn_likelihood(torch.tensor([[0.0, 1.0]]), torch.Generator().manual_seed(s))) for s in range(9)}
    assert len(drawn) == 2


def test_a_number_for_each_window(monkeypatch):
    monkeypatch.setattr(module, "eager_attention", lambda model: nullcontext())
    seen = []

    def model(input_ids, use_cache):
        seen.append(input_ids.tolist())
        assert not use_cache and torch.is_grad_enabled()
        return SimpleNamespace(logits=torch.eye(9)[input_ids] * 200)

    found = list(predictions(model, SimpleNamespace(ids=list(range(7)), window=3)))
    assert seen == [[[0, 1, 2]], [[3, 4, 5]], [[6]]]
    assert [float(value) for value in found] == pytest.approx([0, 0, 0], abs=1e-6)
