"""Collects the inputs of a graph's Linear nodes while the graph runs on calibration samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir as ir
import torch
from numpy.typing import NDArray

from triform.export.graph.linear import LINEAR
from triform.export.graph.nodes import nodes
from triform.export.runners import ACTIVATION_PREFIX, EncoderRunner


def add_activation_outputs(model: ir.Model) -> dict[str, str]:
    """Make every Linear's input an output of the graph, before the Linear nodes are lowered.

    Returns:
        output name by weight name.
    """
    output_by_weight: dict[str, str] = {}
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
        output_by_weight[str(weight.name)] = output_by_input[id(x)]
    return output_by_weight


def collect_activations(
    runner: EncoderRunner, batches: Iterable[Mapping[str, NDArray[Any]]], outputs: Iterable[str], rows: int
) -> dict[str, torch.Tensor]:
    """Run the batches and keep the first `rows` vectors of each output.

    Args:
        runner: a graph with the outputs of `add_activation_outputs`.
        batches: inputs without padding, by name.
        outputs: names of the outputs to keep.
        rows: most vectors of each output to keep.

    Returns:
        float32 (rows or fewer, in_features) by output name.
    """
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in outputs}
    counts = dict.fromkeys(kept, 0)
    for arrays in batches:
        results = runner.run(arrays, list(kept))
        for name, parts in kept.items():
            value = torch.from_numpy(results[name])
            value = value.reshape(-1, value.shape[-1])[: rows - counts[name]]
            parts.append(value)
            counts[name] += len(value)
        if min(counts.values(), default=rows) >= rows:
            break
    return {name: torch.cat(parts) for name, parts in kept.items()}
