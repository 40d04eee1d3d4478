"""``triform import``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from triform.cli.commands.bundle.export_extra import check_installed
from triform.cli.outputs.notes import say

HELP = """Import an ONNX model that another tool exported: encoders of texts.

\b
  triform import ./my-onnx-model bundle                  a folder of optimum, sentence-transformers or transformers.js
  triform import ./my-onnx-model bundle --file onnx/model_quantized.onnx

The folder holds config.json, the tokenizer, and the graph, in it or in its folder onnx. The graph keeps its weights as
they are. The bundle's outputs are compared with the original graph's, not with PyTorch's.
"""


def run(
    source: Annotated[Path, typer.Argument(help="The model's folder.")],
    bundle: Annotated[Path, typer.Argument(help="The folder to make.")],
    file: Annotated[Optional[str], typer.Option(help="The graph, if the folder has several.")] = None,
    task: Annotated[
        Optional[str], typer.Option(help="A task by its name on the hub; by default what the model is for.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> int:
    """Parse, call, render."""
    from triform.cli.outputs.tables import megabytes, rows

    check_installed()
    from triform.export.onnx_import.encoder import ImportOptions, import_encoder

    report = import_encoder(source, bundle, ImportOptions(file, task, force), lambda name: say(f"{name} …"))
    if as_json:
        values = dataclasses.asdict(report)
        print(json.dumps({**values, "bundle": str(report.bundle), "graph": str(report.graph)}))
        return 0
    notes = [("note", note) for note in report.notes]
    lines = [("graph", str(report.graph)), ("task", report.task), *notes]
    print(rows([*lines, ("bundle", f"{megabytes(report.size)}  {report.bundle}")]))
    return 0
