"""Reads the Experts nodes that `models/traceable/experts.py` emits, and replaces them by float32 operators.

com.microsoft::MoE and com.microsoft::QMoE are described in docs/ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch

from triform.export.graph.nodes import MICROSOFT, add_initializer, attribute, insert, nodes, replace, set_type, sweep
from triform.export.graph.weights import matrix

EXPERTS = "Experts"
_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class ExpertWeights:
    """The weights of one layer's experts, in the layout of the operators.

    Attributes:
        up: float32 (num_experts, columns, hidden_size); of swiglu, gate and up alternate along the columns.
        up_bias: float32 (num_experts, columns), or None.
        down: float32 (num_experts, hidden_size, intermediate_size).
        down_bias: float32 (num_experts, hidden_size), or None.
    """

    up: torch.Tensor
    up_bias: torch.Tensor | None
    down: torch.Tensor
    down_bias: torch.Tensor | None


def expert_weights(node: ir.Node) -> ExpertWeights:
    """The weights of an Experts node. What has the operators' layout already is not copied."""
    values = _constants(node)
    up, down = (None if value is None else matrix(value) for value in (values[0], values[2]))
    if up is None or down is None:
        raise ValueError(f"{node.name} lacks its weights")
    if attribute(node, "transposed"):
        up, down = up.transpose(1, 2), down.transpose(1, 2)
    up = in_order_of_operator(node, up)
    up_bias, down_bias = expert_biases(node)
    return ExpertWeights(up, up_bias, down, down_bias)


def expert_biases(node: ir.Node) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The biases of an Experts node as `ExpertWeights` has them."""
    _, up, _, down = _constants(node)
    biases = None if up is None else matrix(up), None if down is None else matrix(down)
    return (None if biases[0] is None else in_order_of_operator(node, biases[0])), biases[1]


def in_order_of_operator(node: ir.Node, rows: torch.Tensor) -> torch.Tensor:
    """What belongs to the results of the first product, (num_experts, columns, …), in the operator's order."""
    return _interleaved(rows) if _halves_follow(node) else rows


def _constants(node: ir.Node) -> list[ir.Value | None]:
    """The weights and biases of both products; absent inputs at the end are dropped from the node."""
    return [*node.inputs[2:], None, None][:4]


def _halves_follow(node: ir.Node) -> bool:
    """Whether all gates come before all that they open."""
    return attribute(node, "activation") == "swiglu" and not attribute(node, "interleaved")


def _interleaved(weights: torch.Tensor) -> torch.Tensor:
    """The columns of the first half alternating with those of the second."""
    halves = weights.unflatten(1, (2, weights.shape[1] // 2))
    return halves.transpose(1, 2).flatten(1, 2)


def expert_attributes(node: ir.Node) -> dict[str, Any]:
    """The attributes of MoE and QMoE that say what an Experts node computes."""
    kind = attribute(node, "activation")
    attributes: dict[str, Any] = {"k": attribute(node, "k"), "activation_type": kind, "normalize_routing_weights": 0}
    if kind == "swiglu":
        attributes |= {"swiglu_fusion": 1, "activation_alpha": attribute(node, "alpha")}
        attributes["activation_beta"] = attribute(node, "beta")
        limit = attribute(node, "limit")
        if limit is not None:
            attributes["swiglu_limit"] = limit
    return attributes


def lower_experts_to_float(model: ir.Model) -> None:
    """Replace each Experts node by com.microsoft::MoE with float32 weights."""
    graph = model.graph
    for node in nodes(graph, EXPERTS):
        weights, name = expert_weights(node), _name(node)
        inputs = [
            node.inputs[0],
            _router_logits(graph, node, name),
            _stored(graph, f"{name}.up", weights.up),
            _stored(graph, f"{name}.up_bias", weights.up_bias),
            _stored(graph, f"{name}.down", weights.down),
            _stored(graph, f"{name}.down_bias", weights.down_bias),
        ]
        mixed = insert(graph, node, "MoE", inputs, domain=MICROSOFT, attributes=expert_attributes(node)).outputs[0]
        set_type(mixed, node.outputs[0])
        replace(node.outputs[0], insert(graph, node, "Mul", [mixed, _total(graph, node, name)]).outputs[0])
    sweep(model)


def _name(node: ir.Node) -> str:
    weight = node.inputs[2]
    return "experts" if weight is None else str(weight.name)


def _stored(graph: ir.Graph, name: str, values: torch.Tensor | None) -> ir.Value | None:
    return None if values is None else add_initializer(graph, f"{name}.experts", values.contiguous().numpy())


def _router_logits(graph: ir.Graph, node: ir.Node, name: str) -> ir.Value:
    """Logits whose softmax is the share of each expert in a token's weights: MoE takes no weights as they are."""
    routing = node.inputs[1]
    if routing is None:
        raise ValueError(f"{node.name} lacks its routing")
    least = add_initializer(graph, f"{name}.least", np.array(_TINY, np.float32))
    positive = insert(graph, node, "Max", [routing, least]).outputs[0]
    set_type(positive, routing)
    logits = insert(graph, node, "Log", [positive]).outputs[0]
    set_type(logits, routing)
    return logits


def _total(graph: ir.Graph, node: ir.Node, name: str) -> ir.Value:
    """The sum of each token's weights, float32 (tokens, 1)."""
    axes = add_initializer(graph, f"{name}.axes", np.array([-1]))
    return insert(graph, node, "ReduceSum", [node.inputs[1], axes], attributes={"keepdims": 1}).outputs[0]
