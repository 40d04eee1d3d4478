"""Quantizes both graphs of an encoder-decoder to one goal: bytes go to the graph where they buy most."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir

from triform.export.options import ExportOptions
from triform.export.quantize.blockwise import Blocks
from triform.export.quantize.columns.products import quantizable
from triform.export.quantize.energies import without_shared
from triform.export.quantize.mixed.allocation import Choice, Point
from triform.export.quantize.mixed.choices import choices_of
from triform.export.quantize.mixed.encoder import CalibrationInputs, encoder_choices, store_encoder
from triform.export.quantize.mixed.goals import Loss, choose_point, describe_point, expected_growth, frontier_of
from triform.export.quantize.mixed.lowering import store_decoder
from triform.export.quantize.mixed.matrices import (
    Matrix,
    RoundedMatrices,
    damage_with_feedback,
    energies_of_products,
    matrices_of,
    sizes_of,
)
from triform.export.quantize.mixed.moments import Differentiable
from triform.export.quantize.smoothing import smooth_channels
from triform.export.quantize.threads import in_threads
from triform.export.report import Clock
from triform.runtime.bundle.export_record import QuantizedParity
from triform.runtime.bundle.manifest import Quantization


@dataclasses.dataclass(frozen=True)
class EncoderDecoderGraphs:
    """The graphs of an encoder-decoder, and what the encoder's products read.

    Attributes:
        encoder: fused.
        decoder: fused.
        inputs: of the encoder's products.
    """

    encoder: ir.Model
    decoder: ir.Model
    inputs: CalibrationInputs

    def store(self, blocks: Mapping[str, Blocks], accuracy_level: int) -> dict[str, str]:
        """Replace the products and lookups of both graphs, of a shared matrix by equal blocks; see `store_encoder`."""
        activations = store_encoder(self.encoder, _those_in(self.encoder, blocks), self.inputs, accuracy_level)
        store_decoder(self.decoder, _those_in(self.decoder, blocks), accuracy_level)
        return activations

    def clone(self) -> EncoderDecoderGraphs:
        """A copy to store in another way."""
        return EncoderDecoderGraphs(self.encoder.clone(), self.decoder.clone(), self.inputs)


def lower_pair_to_goal(
    pair: EncoderDecoderGraphs,
    subject: Differentiable,
    compare: Callable[[EncoderDecoderGraphs], QuantizedParity],
    options: ExportOptions,
    folder: Path,
    scratch: Path,
    clock: Clock,
) -> tuple[Quantization, Quantization]:
    """Quantize an encoder-decoder so that it meets the goal of the options.

    Args:
        pair: changed in place.
        subject: what the graphs were traced from.
        compare: from quantized graphs to their differences from the float graphs, on sources kept aside.
        options: with a goal.
        folder: of the bundle, with all files but the graphs and the manifest.
        scratch: an empty folder.
        clock: gets the frontier, and what was measured, as notes.

    Returns:
        how the encoder and the decoder are stored.

    Raises:
        InputError: the goal cannot be reached.
        UnsupportedError: the model has weights that no module of PyTorch multiplies by.
    """
    sensitivity, parameters = subject.sensitivity(scratch), subject.parameters
    energies = energies_of_products(pair.decoder, parameters, sensitivity)
    smooth_channels(pair.decoder, without_shared(energies, pair.encoder))
    by_column = quantizable(pair.encoder, pair.inputs.vectors).keys()
    read = matrices_of(pair.encoder, parameters, sensitivity, by_column)
    written = matrices_of(pair.decoder, parameters, sensitivity)
    matrices = {**read, **written}
    choices = _choices(matrices, written.keys(), pair.inputs, by_column, clock)
    points = frontier_of([pair.encoder, pair.decoder], sizes_of(matrices), choices, folder, "KL")
    blocks = RoundedMatrices(matrices)

    def loss(point: Point, kept: Sequence[Point]) -> Loss:
        copy = pair.clone()
        copy.store(blocks.of(point), options.accuracy_level)
        blocks.keep(point, *kept)
        return encoder_decoder_loss(compare(copy))

    point = choose_point(points, options, loss, clock)
    activations = pair.store(blocks.of(point), options.accuracy_level)
    of_encoder = dataclasses.replace(_describe(point, read, options), activations=activations)
    return of_encoder, _describe(point, written, options)


def _describe(point: Point, names: Iterable[str], options: ExportOptions) -> Quantization:
    """How one of the graphs is stored."""
    own = dataclasses.replace(point, choices={name: point.choices[name] for name in names})
    return describe_point(own, options.accuracy_level)


def _choices(
    matrices: Mapping[str, Matrix],
    in_decoder: Collection[str],
    inputs: CalibrationInputs,
    by_column: Collection[str],
    clock: Clock,
) -> dict[str, list[Choice]]:
    """What each way of storing a matrix costs and damages; one that both graphs have is stored as in a decoder."""

    def choices(name: str) -> list[Choice]:
        matrix = matrices[name]
        if name in in_decoder:
            # The times of an encoder's products are not known. Where the decoder's alone counted, they took bytes from
            # it: whisper-tiny.en in 30 MB had a KL of 0.035 in place of 0.026 on English.
            return choices_of(matrix.parts, looked_up=matrix.looked_up, timed=False, damage=damage_with_feedback)
        return encoder_choices(matrix, name if name in by_column else None, inputs)

    return dict(zip(clock.counted(matrices), in_threads(choices, matrices), strict=True))


def _those_in(model: ir.Model, blocks: Mapping[str, Blocks]) -> dict[str, Blocks]:
    return {name: item for name, item in blocks.items() if name in model.graph.initializers}


def encoder_decoder_loss(parity: QuantizedParity) -> Loss:
    """How much less the float graphs' answers are expected; or the share of the words that change, if that is larger.

    Words that change are few, and their number is a matter of luck: of 351, whisper-tiny.en changed 3 in 36.8 MB, 1 in
    38.8, 3 in 42.4 and 5 in 46.9. So what was counted is taken less its standard error, as of a number of rare events,
    and what is expected is limited too: it is of all tokens that could follow.
    """
    growth = expected_growth(parity.mean_kl)
    predicted = (
        f"perplexity {100 * growth:+.2f} % of what the float32 graphs would write (KL {parity.mean_kl:.4f}), on "
        f"{parity.tokens} tokens of answers to the exporter's evaluation sources"
    )
    if parity.word_errors is None or not parity.words:
        return Loss(growth, predicted)
    error = math.sqrt(parity.word_errors / parity.words)
    changed = (
        f"{100 * parity.word_errors:.2f} % ± {100 * error:.2f} of the {parity.words} words that the float32 graphs "
        "write change"
    )
    # Where one is no number, so is the result.
    return Loss(float(np.maximum(growth, parity.word_errors - error)), f"{changed}, {predicted}")
