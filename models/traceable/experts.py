"""Traces a mixture of experts to one node, through transformers' ExpertsInterface.

The model keeps its own router. A layer's experts become a ``triform::Experts`` node, which `export/quantize/experts.py`
replaces by ``com.microsoft::MoE`` or ``com.microsoft::QMoE``: these compute only the experts that a token is routed to,
without copying their weights. Experts whose activation these operators do not have are computed in batches, with the
weights of the chosen experts gathered for every token.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import PreTrainedModel
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

from triform.models.alike_layers import as_one_operator
from triform.models.traceable.own_experts import adapt_experts

_NAME = "triform"
_ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "identity": lambda values: values,
}
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Activation:
    """The activation between the two products of an expert, as the operators describe it.

    Attributes:
        kind: relu, silu, gelu or identity; swiglu for ``g * sigmoid(alpha * g) * (l + beta)``.
        alpha: of swiglu.
        beta: of swiglu.
        limit: of swiglu; g is cut to at most it, and l to between its negative and it. None for no limit.
        interleaved: of swiglu, whether g and l alternate in the first product, or the first half is g.
    """

    kind: str
    alpha: float = 1.0
    beta: float = 0.0
    limit: float | None = None
    interleaved: bool = False

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """The activation of float (rows, columns), which swiglu halves."""
        if self.kind != "swiglu":
            return _ACTIVATIONS[self.kind](values)
        gate, up = (values[:, 0::2], values[:, 1::2]) if self.interleaved else values.chunk(2, dim=-1)
        if self.limit is not None:
            gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return gate * torch.sigmoid(self.alpha * gate) * (up + self.beta)


# Gets the weights of all experts of a layer, the number of one, its rows and its product; gives what is used as that.
Watcher = Callable[[torch.Tensor, int, torch.Tensor, torch.Tensor], torch.Tensor]
_watchers: list[Watcher] = []


@contextmanager
def watched_products(watcher: Watcher) -> Iterator[None]:
    """Show a function each product of each expert of a prepared model that runs in PyTorch."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


_known: WeakKeyDictionary[torch.nn.Module, Activation] = WeakKeyDictionary()


def prepare_experts(model: PreTrainedModel) -> None:
    """Have the experts of `model` be traced to nodes of their own. Models without experts stay as they are."""
    for module in model.modules():
        adapt_experts(module, compute_experts)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation(_NAME)
    for module in model.modules():
        activation = activation_of(module) if hasattr(module, "has_post_expert_norm") else None
        if activation is not None:
            _known[module] = activation


def activation_of(experts: Any) -> Activation | None:
    """The activation that gives what the experts' own gives for a few numbers; None if the operators have none."""
    if experts.has_post_expert_norm or experts._is_expert_parallel:
        return None
    numbers = [float(value) for value in vars(experts).values() if isinstance(value, int | float)]
    columns = _columns(experts)
    sample = torch.randn(64, columns, generator=torch.Generator().manual_seed(0)) * 2 * max([4.0, *_small(numbers)])
    with torch.no_grad():
        expected = experts._apply_gate(sample) if experts.has_gate else experts.act_fn(sample)
        for candidate in _gates(numbers) if experts.has_gate else map(Activation, _ACTIVATIONS):
            actual = candidate(sample)
            if actual.shape == expected.shape and torch.allclose(actual, expected, _TOLERANCE, _TOLERANCE):
                return candidate
    return None


def _columns(experts: Any) -> int:
    weight = experts.gate_up_proj if experts.has_gate else experts.up_proj
    return int(weight.shape[2 if experts.is_transposed else 1])


def _gates(numbers: list[float]) -> Iterator[Activation]:
    small = _small(numbers)
    for alpha, beta, limit, interleaved in itertools.product([1.0, *small], (0.0, 1.0), [None, *small], (False, True)):
        yield Activation("swiglu", alpha, beta, limit, interleaved)


def _small(numbers: list[float]) -> list[float]:
    """Those that can be a factor or a limit of an activation, and no size of the model."""
    return sorted({number for number in numbers if 0 < number < 100 and number != 1})[:8]


def compute_experts(
    experts: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """The experts of one layer, weighted and summed; the signature is that of transformers' ExpertsInterface.

    Args:
        experts: the layer's module, with the weights of all experts.
        hidden_states: float (tokens, hidden_size).
        top_k_index: int64 (tokens, k), the experts of each token.
        top_k_weights: float (tokens, k), of these experts.

    Returns:
        float (tokens, hidden_size).
    """
    if not torch.compiler.is_exporting():
        given = hidden_states, top_k_index, top_k_weights
        # Which experts are computed depends on the numbers; the graph has one operator.
        return as_one_operator(_kind(experts), [*given, *experts.parameters()], lambda: _one_by_one(experts, *given))
    if experts not in _known:
        batched: torch.Tensor = ALL_EXPERTS_FUNCTIONS["batched_mm"](experts, hidden_states, top_k_index, top_k_weights)
        return batched
    return _emit(experts, _known[experts], hidden_states, top_k_index, top_k_weights)


def _kind(experts: Any) -> Hashable:
    """What the experts of a layer compute, but for their weights."""
    settings = {name: value for name, value in vars(experts).items() if isinstance(value, int | float | str)}
    return type(experts), repr(experts), tuple(settings.items())


def _one_by_one(
    experts: Any, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
) -> torch.Tensor:
    """With the weights of one expert at a time, where batches would copy weights for every token."""
    result = torch.zeros_like(hidden_states)
    for expert in top_k_index.unique().tolist():
        tokens, places = torch.where(top_k_index == expert)
        output = _single(experts, hidden_states[tokens], expert)
        result.index_add_(0, tokens, (output * top_k_weights[tokens, places, None]).to(result.dtype))
    return result


def _single(experts: Any, rows: torch.Tensor, expert: int) -> torch.Tensor:
    """One expert's output, float (rows, hidden_size)."""
    name = "gate_up_proj" if experts.has_gate else "up_proj"
    values = _product(experts, name, rows, expert)
    values = experts._apply_gate(values) if experts.has_gate else experts.act_fn(values)
    values = _product(experts, "down_proj", values, expert)
    result: torch.Tensor = experts.post_expert_norm(values) if experts.has_post_expert_norm else values
    return result


def _product(experts: Any, name: str, rows: torch.Tensor, expert: int) -> torch.Tensor:
    weights = getattr(experts, name)
    weight = weights[expert]
    bias = getattr(experts, f"{name}_bias")[expert] if experts.has_bias else None
    product = torch.nn.functional.linear(rows, weight.T if experts.is_transposed else weight, bias)
    for watcher in _watchers:
        product = watcher(weights, expert, rows, product)
    return product


def _emit(
    experts: Any,
    activation: Activation,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """One node; its second input has the weight of every expert for every token, 0 for those not chosen."""
    up = "gate_up_proj" if experts.has_gate else "up_proj"
    routing = hidden_states.new_zeros(hidden_states.shape[0], experts.num_experts)
    # Added, and not written: the same expert may be there twice, once with a weight of 0.
    routing = routing.scatter_add(1, top_k_index, top_k_weights.to(routing.dtype))
    inputs: list[torch.Tensor | None] = [hidden_states, routing]
    inputs.append(getattr(experts, up))
    inputs.append(getattr(experts, f"{up}_bias") if experts.has_bias else None)
    inputs.append(experts.down_proj)
    inputs.append(experts.down_proj_bias if experts.has_bias else None)
    attributes: dict[str, Any] = {
        "k": top_k_index.shape[-1],
        "transposed": int(experts.is_transposed),
        "interleaved": int(activation.interleaved),
        "activation": activation.kind,
        "alpha": activation.alpha,
        "beta": activation.beta,
    }
    if activation.limit is not None:
        attributes["limit"] = activation.limit
    output: torch.Tensor = torch.onnx.ops.symbolic(
        "triform::Experts", inputs, attributes, dtype=hidden_states.dtype, shape=hidden_states.shape, version=1
    )
    return output


ALL_EXPERTS_FUNCTIONS.register(_NAME, compute_experts)
