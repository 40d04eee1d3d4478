"""What flows into the Linear nodes of a graph, caught while the graph runs on calibration inputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import onnx_ir as ir
import torch
from numpy.typing import NDArray

from triform.export.graph.linear import LINEAR
from triform.export.graph.nodes import nodes
from triform.export.runners import EncoderRunner

PREFIX = "activation."


def add_activation_outputs(model: ir.Model) -> dict[str, str]:
    """Make every Linear's input an output of the graph, before the Linear nodes are lowered.

    Returns:
        output name by weight name.
    """
    found: dict[str, str] = {}
    made: dict[int, str] = {}
    for node in nodes(model.graph, LINEAR):
        x, weight = node.inputs[:2]
        if x is None or weight is None:
            continue
        if id(x) not in made:
            copy = ir.node("Identity", [x])
            output = copy.outputs[0]
            output.name, output.type, output.shape = f"{PREFIX}{len(made)}", x.type, x.shape
            model.graph.insert_before(node, copy)
            model.graph.outputs.append(output)
            made[id(x)] = str(output.name)
        found[str(weight.name)] = made[id(x)]
    return found


def catch(
    runner: EncoderRunner, batches: Iterable[Mapping[str, NDArray[Any]]], outputs: Iterable[str], rows: int
) -> dict[str, torch.Tensor]:
    """Run the batches and keep what came by.

    Args:
        runner: a graph with the outputs of `add_activation_outputs`.
        batches: inputs without padding, by name.
        outputs: which to keep.
        rows: how many vectors of each to keep.

    Returns:
        float32 (rows or fewer, in_features) by output name.
    """
    kept: dict[str, list[torch.Tensor]] = {name: [] for name in outputs}
    counts = dict.fromkeys(kept, 0)
    for arrays in batches:
        found = runner.run(arrays, list(kept))
        for name, parts in kept.items():
            value = torch.from_numpy(found[name])
            value = value.reshape(-1, value.shape[-1])[: rows - counts[name]]
            parts.append(value)
            counts[name] += len(value)
        if min(counts.values(), default=rows) >= rows:
            break
    return {name: torch.cat(parts) for name, parts in kept.items()}
