"""Makes a decoder's graph for long prompts, beside the decoder's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir
import torch

from triform.export.forms.decoders.graph import PROMPTS_FILE, StoredPrompts
from triform.export.quantize.columns.prompts import lower_to_columns
from triform.export.report import Counted
from triform.export.write import GraphFile, Stored
from triform.runtime.bundle.export_record import QuantizedParity
from triform.runtime.bundle.manifest import Quantization


class PromptsFile:
    """The file of the graph for prompts. What the decoder's file has of its constants is not stored again.

    First `lower_products`, while the float graph has its weights; then the decoder's own graph is written; then
    `finish`.

    Attributes:
        graph: changed as it is lowered.
        weights: those that are in 8-bit columns, see `lower_to_columns`.
    """

    def __init__(self, graph: ir.Model, folder: Path, stored: Stored) -> None:
        """Begin the file.

        Args:
            graph: the decoder's float graph, which stays as it is.
            folder: to write into.
            stored: the constants of the decoder's file, which is filled as that is written.

        Raises:
            OSError: the folder cannot be written.
        """
        self.graph = graph.clone()
        self.weights: dict[str, tuple[str, ...]] = {}
        self._path = folder / PROMPTS_FILE
        self._file = GraphFile(self._path, stored)

    def lower_products(self, energies: Mapping[str, torch.Tensor], counted: Counted) -> None:
        """Write the columns of all products but the head. Arguments and errors as `lower_to_columns`."""
        self.weights = lower_to_columns(self.graph, energies, self._file.store, counted)

    def finish(self, compare: Callable[[Path], QuantizedParity]) -> StoredPrompts:
        """Write the graph, of which every Linear is lowered by now, and compare it.

        Args:
            compare: compares the graph of this file with the float graph.

        Raises:
            OSError: the disk is full.
        """
        with self._file:
            self._file.finish(self.graph)
        activations = dict.fromkeys(self.weights, "rows")
        quantization = Quantization("int8", bits=8, matrices=len(self.weights), activations=activations)
        return StoredPrompts(self.graph, quantization, compare(self._path))
