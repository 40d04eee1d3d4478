"""Collects the inputs of a graph's Linear nodes while the graph runs on calibration samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from numpy.typing import NDArray

from triform.export.graph.linear import LINEAR
from triform.export.graph.nodes import nodes
from triform.export.runners import ACTIVATION_PREFIX, EncoderRunner


def add_activation_outputs(model: ir.Model) -> dict[str, list[str]]:
    """Make every Linear's input an output of the graph, before the Linear nodes are lowered.

    Returns:
        output names by weight name: several where layers share a weight.
    """
    outputs_by_weight: dict[str, list[str]] = {}
    output_by_input: dict[int, str] = {}
    for node in nodes(model.graph, LINEAR):
        x, weight = node.inputs[:2]
        if x is None or weight is None:
            continue
        if id(x) not in output_by_input:
            copy = ir.node("Identity", [x])
            output = copy.outputs[0]
            output.name, output.type, output.shape = f"{ACTIVATION_PREFIX}{len(output_by_input)}", x.type, x.shape
            model.graph.insert_before(node, copy)
            model.graph.outputs.append(output)
            output_by_input[id(x)] = str(output.name)
        outputs_by_weight.setdefault(str(weight.name), []).append(output_by_input[id(x)])
    return outputs_by_weight


def collect_activations(
    runner: EncoderRunner, batches: Sequence[Mapping[str, NDArray[Any]]], outputs: Iterable[str], rows: int
) -> dict[str, torch.Tensor]:
    """Run the batches and keep `rows` vectors of each output, about as many of each batch.

    They are spread over a batch, and the one with the largest number is among them: ranges depend on it.

    Args:
        runner: a graph with the outputs of `add_activation_outputs`.
        batches: inputs without padding, by name.
        outputs: names of the outputs to keep.
        rows: most vectors of each output to keep.

    Returns:
        float32 (rows or fewer, in_features) by output name.
    """
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in outputs}
    for index, arrays in enumerate(batches):
        results = runner.run(arrays, list(kept))
        for name, parts in kept.items():
            value = torch.from_numpy(results[name])
            missing = rows - sum(map(len, parts))
            # What a short batch lacks, later ones may have more of.
            parts.append(_spread(value.reshape(-1, value.shape[-1]), -(-missing // (len(batches) - index))))
    return {name: torch.cat(parts) for name, parts in kept.items()}


def _spread(vectors: torch.Tensor, count: int) -> torch.Tensor:
    """`count` vectors at equal distances, the last of them replaced by the one with the largest number."""
    if count < 1 or len(vectors) <= count:
        return vectors[:count]
    chosen = torch.linspace(0, len(vectors) - 1, count).long()
    chosen[-1] = vectors.abs().amax(1).argmax()
    return vectors[chosen].clone()
