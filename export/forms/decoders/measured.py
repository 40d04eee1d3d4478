"""Runs a decoder's float graph once for all that is wanted of it: parity, calibration, and logits to compare with."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from triform.export.quantize.blocks import lower_to_float
from triform.export.quantize.energies import add_energy_outputs, energies_of, energy_feedings
from triform.export.report import Counted, uncounted
from triform.export.runners import usable_cores
from triform.export.samples.batches import Array
from triform.export.samples.texts import TokenWindows
from triform.export.verify.decoder import (
    check_parity,
    check_states,
    chunked_results,
    logits_feeding,
    parity_of,
    shared_feeding,
    states_feeding,
    unshared_feedings,
)
from triform.export.verify.segmented import SegmentedDecoder
from triform.runtime.bundle.export_record import Parity
from triform.runtime.bundle.manifest import CacheInfo


@dataclass(frozen=True)
class Reference:
    """What PyTorch computes for a text.

    Attributes:
        ids: of the text.
        logits: float32 (len(ids), vocab_size).
        states: the last hidden states, float32 (len(ids), hidden_size); None where the graph does not give them.
    """

    ids: list[int]
    logits: Array
    states: Array | None


class SavedLogits:
    """Logits of some windows in files: those of a large vocabulary take much memory."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count, self._width = folder, 0, 0

    def append(self, chunks: Iterable[Array]) -> None:
        """Save the logits of the next window, float32 (tokens, vocab_size) in chunks."""
        with self._path(self._count).open("wb") as file:
            for chunk in chunks:
                self._width = chunk.shape[1]
                chunk.tofile(file)
        self._count += 1

    def _path(self, index: int) -> Path:
        return self._folder / f"logits{index}"

    def beginning(self, rows: int) -> Array:
        """The first logits of the first window, float32 (rows, vocab_size)."""
        return np.fromfile(self._path(0), np.float32, rows * self._width).reshape(rows, self._width)

    def __iter__(self) -> Iterator[Array]:
        """Read the logits of one window after another."""
        for index in range(self._count):
            yield np.fromfile(self._path(index), np.float32).reshape(-1, self._width)


@dataclass(frozen=True)
class Measured:
    """What was measured of a decoder's float graph.

    Attributes:
        parity: with PyTorch.
        importance: by weight name, the energy of each input channel over the calibration text.
        expected: its logits for the text that quantized graphs are compared on, a window each.
    """

    parity: Parity
    importance: dict[str, torch.Tensor]
    expected: SavedLogits


def measure_decoder(
    graph: ir.Model,
    cache: CacheInfo,
    scratch: Path,
    reference: Reference,
    calibration: TokenWindows | None,
    text: TokenWindows,
    counted: Counted = uncounted,
) -> Measured:
    """Verify a decoder's float graph, and run it on other texts.

    Args:
        graph: fused; stays as it is.
        cache: what it keeps of a text.
        scratch: a folder for the graph and its logits.
        reference: compared with.
        calibration: to measure energies on; None if they are not needed.
        text: to compute logits for; begins with the text of the reference.
        counted: reports how many parts of the graph have run.

    Raises:
        ExportError: the graph does not compute what PyTorch does.
    """
    copy = graph.clone()
    outputs = add_energy_outputs(copy) if calibration is not None else {}
    lower_to_float(copy)
    runner = SegmentedDecoder(copy, scratch, cache, usable_cores())
    count = len(reference.ids)
    of_states = [] if reference.states is None else [states_feeding(reference.ids)]
    of_energies = [] if calibration is None else energy_feedings(calibration.ids, calibration.window)
    first, *others = text.windows()
    of_first, of_others = shared_feeding(first, count), [logits_feeding(window) for window in others]
    results = runner.run([of_first, *unshared_feedings(reference.ids), *of_states, *of_energies, *of_others], counted)
    expected = SavedLogits(scratch)
    expected.append(next(results)[0][0] for _ in of_first.chunks)
    at_once = next(results)
    in_chunks = chunked_results(expected.beginning(count))
    parity = parity_of(itertools.chain([at_once], in_chunks, results), reference.logits, reference.ids)
    check_parity(parity)
    if reference.states is not None:
        check_states(results, reference.states)
    by_output = energies_of(results, len(of_energies))
    for feeding in of_others:
        expected.append(next(results)[0][0] for _ in feeding.chunks)
    return Measured(parity, {weight: by_output[output] for weight, output in outputs.items()}, expected)
