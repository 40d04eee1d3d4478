"""The experts of a mixture, what was measured of each, and how they can be stored: a layer's in one way."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir
import torch

from triform.export.graph.experts import EXPERTS, expert_weights, in_order_of_operator
from triform.export.graph.linear import LINEAR
from triform.export.graph.nodes import nodes, sweep
from triform.export.graph.weights import MODEL_PREFIX, shape_of
from triform.export.options import ExportOptions
from triform.export.quantize.blocks import linear_inputs
from triform.export.quantize.blockwise import dequantize, quantize_matrix
from triform.export.quantize.experts import largest_block, lower_layer, names_of
from triform.export.quantize.mixed.allocation import Choice
from triform.export.quantize.mixed.matrices import not_measured
from triform.export.quantize.mixed.moments import ExpertMoments, Sensitivity
from triform.runtime.errors import UnsupportedError, option

# Bits and block sizes: the operator has 4 and 8 bits.
_LARGEST = 64
_SCHEMES = ((4, 64), (4, 32), (4, 16), (8, 64), (8, 32), (8, 16))
# As many experts of a layer, and as many rows of each, tell enough of the error of all.
_SAMPLED_EXPERTS, _SAMPLED_ROWS = 8, 128
# Bytes of a scale, which the operator reads in float32.
_SCALE = 4
# An expert that was given few tokens is rounded as if it had been given this share of all experts' mean, too.
_OF_ALL = 0.1


@dataclass(frozen=True)
class Experts:
    """The experts of a layer.

    Attributes:
        node: in the graph, which must not be lowered while the weights are read.
        moments: of both products, in the operator's order.
    """

    node: ir.Node
    moments: tuple[ExpertMoments, ExpertMoments]

    @property
    def names(self) -> tuple[str, str]:
        """Of the constants with the weights of both products."""
        return names_of(self.node)

    @property
    def sizes(self) -> dict[str, int]:
        """How many weights each constant has."""
        return {name: math.prod(shape_of(self._values[name])) for name in self.names}

    @property
    def _values(self) -> dict[str, ir.Value]:
        return {str(value.name): value for value in self.node.inputs if value is not None}

    def importance(self) -> dict[str, torch.Tensor]:
        """By name of the constant, the energies of what each expert reads, float32 (num_experts, in_features)."""
        return {name: _importance(moments) for name, moments in zip(self.names, self.moments, strict=True)}


def check_has_no_experts(model: ir.Model, options: ExportOptions) -> None:
    """Refuse mixtures of experts that goals do not count: those of encoders and encoder-decoders.

    Raises:
        UnsupportedError: the model has experts.
    """
    if nodes(model.graph, EXPERTS):
        raise UnsupportedError(
            f"{option(options.goals[0])} is for mixtures of experts that are decoders; export with "
            f"{option('quantize')} int4 or int8"
        )


def routers_of(model: ir.Model, parameters: Mapping[str, torch.nn.Parameter], sensitivity: Sensitivity) -> set[str]:
    """Names of the weights of products that choose experts: small, and their errors do much harm.

    Arguments as `experts_of`.
    """
    names = {str(linear_inputs(node)[1].name) for node in nodes(model.graph, LINEAR)}
    return {name for name in names if id(parameters.get(name.removeprefix(MODEL_PREFIX))) in sensitivity.routers}


def energies_of_experts(
    model: ir.Model, parameters: Mapping[str, torch.nn.Parameter], sensitivity: Sensitivity
) -> dict[str, torch.Tensor]:
    """By name of the weights, what the channels that the first products read count for, float32 (in_features,).

    Arguments and errors as `experts_of`.
    """
    names = [names_of(node)[0] for node in nodes(model.graph, EXPERTS)]
    return {name: _moments(name, parameters, sensitivity).inputs.sum(0) for name in names}


def experts_of(
    model: ir.Model,
    parameters: Mapping[str, torch.nn.Parameter],
    sensitivity: Sensitivity,
    shares: Mapping[str, torch.Tensor],
) -> dict[str, Experts]:
    """The experts of each layer, by name of the first product's weights; of layers that fit no blocks, none.

    Args:
        model: the graph, not lowered yet.
        parameters: of the model that was traced, by name.
        sensitivity: what was measured of them.
        shares: by name of the first product's weights, what smoothing left of the energy of each channel, float32
            (in_features,).

    Raises:
        UnsupportedError: nothing was measured of some experts.
    """
    found = {}
    for node in nodes(model.graph, EXPERTS):
        up, down = (_moments(name, parameters, sensitivity) for name in names_of(node))
        if largest_block(_LARGEST, up.inputs.shape[1], down.inputs.shape[1]) is None:
            continue
        ordered = ExpertMoments(up.inputs * shares[names_of(node)[0]], in_order_of_operator(node, up.outputs))
        found[names_of(node)[0]] = Experts(node, (ordered, down))
    return found


def _moments(name: str, parameters: Mapping[str, torch.nn.Parameter], sensitivity: Sensitivity) -> ExpertMoments:
    own = name.removeprefix(MODEL_PREFIX)
    parameter = parameters.get(own)
    moments = None if parameter is None else sensitivity.experts.get(id(parameter))
    if moments is None:
        raise not_measured(own)
    return moments


def choices_of_experts(experts: Experts) -> list[Choice]:
    """What each way of storing a layer's experts costs and damages; both products have blocks of one size."""
    both = expert_weights(experts.node)
    weights = (both.up, both.down)
    return [
        Choice(bits, size, _size(weights, bits, size), _damage(weights, experts.moments, bits, size))
        for bits, size in _SCHEMES
        if all(item.shape[2] % size == 0 for item in weights)
    ]


def lower_experts_to_choices(
    model: ir.Model, experts: Mapping[str, Experts], choices: Mapping[str, Choice], accuracy_level: int
) -> None:
    """Quantize the experts of each layer as it was chosen; those without a choice stay as they are.

    Args:
        model: changed in place.
        experts: by name of the first product's weights.
        choices: by the same name, among others.
        accuracy_level: of the operator.
    """
    for node in nodes(model.graph, EXPERTS):
        name = names_of(node)[0]
        if name not in experts:
            continue
        choice, importance = choices[name], experts[name].importance()
        if choice.block_size is None:
            raise ValueError(f"{choice} has no blocks")
        lower_layer(model.graph, node, choice.bits, choice.block_size, accuracy_level, importance)
    sweep(model)


def _importance(moments: ExpertMoments) -> torch.Tensor:
    return moments.inputs + _OF_ALL * moments.inputs.mean(0)


def _size(weights: Sequence[torch.Tensor], bits: int, block_size: int) -> int:
    total = 0
    for item in weights:
        count, rows, width = item.shape
        blocks = width // block_size
        total += count * rows * (width * bits // 8 + blocks * _SCALE + -(-blocks * bits // 8))
    return total


def _damage(weights: Sequence[torch.Tensor], moments: Sequence[ExpertMoments], bits: int, block_size: int) -> float:
    """Of plain rounding, from some rows of some experts."""
    return sum(_damage_of_product(item, known, bits, block_size) for item, known in zip(weights, moments, strict=True))


def _damage_of_product(weights: torch.Tensor, moments: ExpertMoments, bits: int, block_size: int) -> float:
    count, rows, width = weights.shape
    some = torch.linspace(0, count - 1, min(_SAMPLED_EXPERTS, count)).round().long().tolist()
    chosen = torch.linspace(0, rows - 1, min(_SAMPLED_ROWS, rows)).round().long()
    importance, damage = _importance(moments), 0.0
    for expert in some:
        weight = weights[expert][chosen].float()
        blocks = quantize_matrix(weight, importance[expert], bits, block_size)
        errors = (torch.from_numpy(dequantize(blocks, width)) - weight).square() @ moments.inputs[expert]
        shares = moments.outputs[expert][chosen]
        damage += float(0.5 * (errors * shares).sum() / shares.sum().clamp(min=1e-30))
    return damage * count / len(some)
