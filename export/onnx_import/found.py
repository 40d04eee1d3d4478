"""A graph that is to be imported, what the user asks for, and what any graph tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from triform.runtime.bundle.manifest import Quantization

# Products that round their inputs to 8 bits, all rows of a run with one scale.
_TOGETHER = ("MatMulInteger", "DynamicQuantizeMatMul", "DynamicQuantizeLinear", "QAttention")
# Products of quantized weights, and what turns those into floats.
_QUANTIZED = (
    "MatMulInteger",
    "QLinearMatMul",
    "MatMulNBits",
    "DequantizeLinear",
    "QAttention",
    "DynamicQuantizeMatMul",
)
# The same with a scale for all runs.
_FIXED = ("QLinearMatMul", "QuantizeLinear")
# Of MatMulNBits: its inputs are rounded to 8 bits.
_ROUNDING = 4


@dataclass(frozen=True)
class ImportOptions:
    """How to import a model.

    Attributes:
        file: path of the graph in the folder; see `find_graph` and `find_parts`.
        encoder_file: of an encoder-decoder, path of the encoder's graph; by default that of the same kind.
        task: of an encoder, transformers' name of it; by default what outputs and config imply.
        against: of a model that writes, the checkpoint that it was made of, to compare it with PyTorch: a folder, a
            GGUF file or a hub id.
        context_length: of a model that writes, the most tokens of a text; by default the model's own limit.
        force: whether to replace an existing bundle.
    """

    file: str | None = None
    encoder_file: str | None = None
    task: str | None = None
    against: str | None = None
    context_length: int | None = None
    force: bool = False


@dataclass(frozen=True)
class Found:
    """A graph to import.

    Attributes:
        folder: that the user named.
        path: of the graph.
        graph: as it was read; its weights are on the disk.
    """

    folder: Path
    path: Path
    graph: ir.Model

    @property
    def notes(self) -> dict[str, str]:
        """Where it comes from, for the manifest."""
        made_by = " ".join(filter(None, (self.graph.producer_name, self.graph.producer_version))) or "unknown"
        return {"imported from": self.path.relative_to(self.folder).as_posix(), "made by": made_by}


def quantization_of(graph: ir.Graph) -> Quantization:
    """How the weights of a graph are stored, as far as its operators tell."""
    nodes = list(graph.all_nodes())
    count = sum(node.op_type in _QUANTIZED for node in nodes)
    if not count:
        return Quantization("none")
    levels = [node.attributes["accuracy_level"].as_int() for node in nodes if "accuracy_level" in node.attributes]
    rounds = rounds_together(graph) or any(node.op_type in _FIXED for node in nodes)
    return Quantization("keep", matrices=count, accuracy_level=_ROUNDING if rounds else max(levels, default=None))


def is_exact(graph: ir.Graph) -> bool:
    """Whether a graph computes in float32 throughout, whatever its weights are stored as."""
    half = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)
    floats = all(value.dtype not in half for value in graph.initializers.values())
    return floats and quantization_of(graph).accuracy_level != _ROUNDING


def rounds_together(graph: ir.Graph) -> bool:
    """Whether activations are rounded with one scale for all tokens of a run, so that they change each other."""
    return any(node.op_type in _TOGETHER for node in graph.all_nodes())


def has_rows_at_their_start(graph: ir.Graph) -> bool:
    """Whether an operator takes the keys and values of short rows at the beginning of the past, and not at its end."""
    return any(node.op_type == "GroupQueryAttention" for node in graph.all_nodes())


def parameters_of(graph: ir.Graph) -> int:
    """The number of stored weights; whole numbers of 64 bits are sizes and places."""
    packed: dict[ir.Value | None, int] = {}
    for node in graph.all_nodes():
        if node.op_type == "MatMulNBits":
            _, weights, *scales = node.inputs
            packed |= dict.fromkeys(scales, 0)
            packed[weights] = node.attributes["K"].as_int() * node.attributes["N"].as_int()
    total = 0
    for value in graph.initializers.values():
        tensor = value.const_value
        if value in packed:
            total += packed[value]
        elif tensor is not None and tensor.dtype != ir.DataType.INT64:
            total += tensor.size
    return total
