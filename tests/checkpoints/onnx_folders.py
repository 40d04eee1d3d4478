"""Folders with ONNX graphs as other tools export them: traced from PyTorch, or built by hand."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
import transformers

NAMES = ("input_ids", "attention_mask", "token_type_ids")


class _Named(torch.nn.Module):
    """A model whose outputs are a tuple, as tracing wants it."""

    def __init__(self, model, outputs):
        super().__init__()
        self.model = model
        self.outputs = outputs

    def forward(self, *inputs):
        given = self.model(**dict(zip(NAMES, inputs, strict=True)))
        return tuple(given[name] for name in self.outputs)


def add_traced(folder: Path, architecture: str, outputs: tuple[str, ...], file: str = "model.onnx") -> Path:
    """Export a checkpoint's model by torch's TorchScript exporter, which optimum uses; names and axes are optimum's."""
    model = getattr(transformers, architecture).from_pretrained(folder, attn_implementation="eager").eval()
    inputs = (torch.tensor([[2, 9, 3], [2, 11, 3]]), torch.ones(2, 3, dtype=torch.int64), torch.zeros(2, 3).long())
    one_a_text = architecture.endswith("SequenceClassification")
    axes = {name: {0: "batch_size", 1: "sequence_length"} for name in (*NAMES, *outputs)}
    axes |= {"logits": {0: "batch_size"}} if one_a_text else {}
    (folder / file).parent.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Named(model, outputs), inputs, str(folder / file), dynamo=False, opset_version=17,
            input_names=list(NAMES), output_names=list(outputs), dynamic_axes=axes,
        )  # fmt: skip
    return folder / file


def table_graph(
    table,
    inputs=(("input_ids", onnx.TensorProto.INT64), ("attention_mask", onnx.TensorProto.INT64)),
    *,
    shape=("batch_size", "sequence_length"),
    dtype=onnx.TensorProto.FLOAT,
    output="last_hidden_state",
):
    """A graph that looks its tokens up in a table, and does nothing else."""
    helper = onnx.helper
    ids = inputs[0][0]
    values = onnx.numpy_helper.from_array(table.astype(onnx.helper.tensor_dtype_to_np_dtype(dtype)), "table")
    return helper.make_model(
        helper.make_graph(
            [helper.make_node("Gather", ["table", ids], [output])],
            "table",
            [helper.make_tensor_value_info(name, kind, list(shape)) for name, kind in inputs],
            [helper.make_tensor_value_info(output, dtype, [*shape, table.shape[1]])],
            [values],
        ),
        opset_imports=[helper.make_opsetid("", 11)],
        ir_version=7,
    )
