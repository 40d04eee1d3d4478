"""Turns tensors of a file into the numbers of a parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.container import GgufFile
from triform.export.checkpoint.gguf.numbers import values_of
from triform.export.checkpoint.gguf.placement import Placement
from triform.runtime.errors import ExportError

# A norm that is not multiplied by a number more than its weight, in a model whose others are.
_PLAIN_NORM = ".ssm_norm."


@dataclass(frozen=True)
class Layout:
    """How a class of models stores a parameter.

    Attributes:
        turned: whether the last two dimensions are exchanged.
        interleaved: whether the rows of two tensors alternate, instead of following each other.
    """

    turned: bool = False
    interleaved: bool = False


def layouts_of(model: PreTrainedModel) -> dict[str, Layout]:
    """The layouts that are not the usual one, by the parameter's name."""
    found = {
        f"{name}.weight": Layout(turned=True) for name, module in model.named_modules() if isinstance(module, Conv1D)
    }
    for name, module in model.named_modules():
        if hasattr(module, "is_transposed") and hasattr(module, "is_concatenated"):
            for own, parameter in module.named_parameters(recurse=False):
                matrices = parameter.ndim == 3
                found[f"{name}.{own}"] = Layout(
                    turned=bool(module.is_transposed) and matrices, interleaved=not module.is_concatenated
                )
    return found


def numbers_of(
    placement: Placement, name: str, parameters: Mapping[str, torch.Tensor], layout: Layout, norm_offset: float
) -> torch.Tensor:
    """The numbers of a parameter.

    Args:
        placement: where they are.
        name: of the parameter.
        parameters: those of the model, by name.
        layout: of the parameter.
        norm_offset: what the file adds to the weights of norms.

    Raises:
        ExportError: the model has no such parameter, or one of another shape.
    """
    if name not in parameters:
        raise ExportError(f"{placement.tensor.name} has no place in the model ({name})")
    values = _together(placement, layout)
    if norm_offset and name.endswith("norm.weight") and _PLAIN_NORM not in placement.tensor.name:
        values -= norm_offset
    if layout.turned:
        values = values.transpose(-1, -2).contiguous()
    if name.endswith(".A_log"):
        values = _logarithm(values, placement)
    values = _in_shape(values, placement, parameters[name].shape)
    if values.shape != parameters[name].shape:
        raise ExportError(
            f"{placement.tensor.name} is {list(placement.tensor.shape)}, but by the file's keys it would be "
            f"{list(parameters[name].shape)}"
        )
    return values


def layer_numbers(
    file: GgufFile, architecture: Architecture, parameters: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The parameters whose numbers are a file's keys, one number for each layer.

    Raises:
        ExportError: a key is missing, or has more or fewer numbers than there are layers.
    """
    found: dict[str, torch.Tensor] = {}
    for key, target in architecture.layer_values.items():
        values = np.ravel(file.values.get(key, []))
        names = [target.format(layer) for layer in range(len(values))]
        if not names or not set(names) <= set(parameters) or target.format(len(names)) in parameters:
            raise ExportError(f"{file.path.name} has {len(names)} numbers of {key}, not one for each layer")
        found |= {
            name: torch.full(parameters[name].shape, float(value)) for name, value in zip(names, values, strict=True)
        }
    return found


def _logarithm(values: torch.Tensor, placement: Placement) -> torch.Tensor:
    """The logarithm of rates of decay, which a file has as they are, below 0."""
    if not bool((values < 0).all()):
        raise ExportError(f"{placement.tensor.name} has rates of decay that are not below 0")
    return torch.log(-values)


def _in_shape(values: torch.Tensor, placement: Placement, shape: torch.Size) -> torch.Tensor:
    """Numbers in the dimensions of a parameter.

    A convolution of single channels has a dimension of 1 more, and so has a matrix of one row, which llama.cpp writes
    as a vector. A file may have a vector in rows, a matrix for each of several parameters in one tensor, and experts
    apart that a parameter has as rows of one matrix.
    """
    if values.ndim == 1 and shape == (1, len(values)):
        return values[None]
    if values.ndim == 3 and len(shape) == 2:
        return (values.transpose(1, 2) if ".ffn_down_exps." in placement.tensor.name else values).flatten(0, 1)
    if values.ndim == 2 and values.unsqueeze(1).shape == shape:
        return values.unsqueeze(1)
    return values.flatten() if values.ndim == 2 and values.flatten().shape == shape else values


def _together(placement: Placement, layout: Layout) -> torch.Tensor:
    """The numbers of a placement, with those of its second tensor behind them or between them."""
    if placement.second is None:
        values = torch.from_numpy(values_of(placement.stored))
    else:
        values = _both(placement, torch.from_numpy(values_of(placement.second)), layout)
        if placement.rows is not None:
            values = values[torch.from_numpy(placement.rows)]
    return values if placement.columns is None else values[:, torch.from_numpy(placement.columns)]


def _both(placement: Placement, second: torch.Tensor, layout: Layout) -> torch.Tensor:
    values = torch.from_numpy(values_of(placement.tensor))
    if ".attn_k_b." in placement.tensor.name:
        # Keys and values of each head of latent attention; those of keys are turned.
        return torch.cat((values.transpose(1, 2), second), 1).flatten(0, 1)
    # Experts come first in a tensor that has them; then rows.
    axis = 1 if "_exps." in placement.tensor.name else 0
    if layout.interleaved:
        return torch.stack((values, second), axis + 1).flatten(axis, axis + 1)
    return torch.cat((values, second), axis)
