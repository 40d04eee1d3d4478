"""``triform import``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from triform.cli.commands.bundle.export_extra import check_installed, compiled_elsewhere
from triform.cli.outputs.export_progress import export_progress

HELP = """Import an ONNX model that another tool exported: encoders of texts, decoders, encoder-decoders.

\b
  triform import ./my-onnx-model bundle                  a folder of optimum, sentence-transformers, transformers.js,
                                                         onnxruntime-genai or mobius-onnx
  triform import ./my-onnx-model bundle --file onnx/model_quantized.onnx
  triform import ./my-whisper bundle --file onnx/decoder_model_merged_q4.onnx     and the encoder of its kind
  triform import ./my-whisper bundle --file onnx/decoder_model_merged_q4.onnx --encoder-file onnx/encoder_model.onnx
  triform import ./my-onnx-model bundle --against ./my-model     compares what writes with PyTorch, too

The folder holds the config, the tokenizer, and the graphs, in it or in its folder onnx. They keep their weights as they
are. The bundle's outputs are compared with those of the original graphs.
"""


@compiled_elsewhere()
def run(
    source: Annotated[Path, typer.Argument(help="The model's folder.")],
    bundle: Annotated[Path, typer.Argument(help="The folder to make.")],
    file: Annotated[
        Optional[str], typer.Option(help="The graph, if there are several; of an encoder-decoder, any one of its kind.")
    ] = None,
    encoder_file: Annotated[
        Optional[str], typer.Option(help="Of an encoder-decoder, the encoder's graph, if it is of another kind.")
    ] = None,
    task: Annotated[
        Optional[str], typer.Option(help="A task by its name on the hub; by default what the model is for.")
    ] = None,
    against: Annotated[
        Optional[str], typer.Option(help="The checkpoint of a model that writes, to compare it with PyTorch.")
    ] = None,
    context_length: Annotated[
        Optional[int], typer.Option(min=2, help="Most tokens of a text; by default the model's limit.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, and events on standard error.")
    ] = False,
) -> int:
    """Parse, call, render."""
    from triform.cli.outputs.tables import megabytes, rows

    check_installed()
    from triform.export.onnx_import.found import ImportOptions
    from triform.export.onnx_import.importing import import_model

    options = ImportOptions(file, encoder_file, task, against, context_length, force)
    with export_progress(as_json=as_json) as progress:
        report = import_model(source, bundle, options, progress)
    if as_json:
        values = dataclasses.asdict(report)
        print(json.dumps({**values, "bundle": str(report.bundle), "graphs": [str(path) for path in report.graphs]}))
        return 0
    notes = [("note", note) for note in report.notes]
    lines = [*(("graph", str(path)) for path in report.graphs), ("task", report.task), *notes]
    print(rows([*lines, ("bundle", f"{megabytes(report.size)}  {report.bundle}")]))
    return 0
