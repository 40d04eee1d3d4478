"""Stores an encoder-decoder on the CPU: in float32, in 8 or 4 bits, or to a goal."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from triform.export.checkpoint.source import Checkpoint
from triform.export.describe.special_tokens import tokens_of
from triform.export.forms.encoder_decoders.answers import Answer, answer_energies, differentiable_pair, greedy_answers
from triform.export.forms.encoder_decoders.graph import DECODER_FILE, ENCODER_FILE, Graphs
from triform.export.forms.encoder_decoders.words import CountedWords, Listening, words_of_float
from triform.export.options import BITS, MIXED, ExportOptions
from triform.export.quantize.blocks import Scheme, lower_to_blocks, lower_to_float
from triform.export.quantize.columns.search import ROWS_WORTH, ROWS_WORTH_OF_AUDIO
from triform.export.quantize.encoder import (
    FloatGraph,
    linear_inputs_of,
    quantize_encoder,
    write_calibration_graph,
    write_float_graph,
)
from triform.export.quantize.energies import add_energy_outputs, without_shared
from triform.export.quantize.kernels_and_tables import narrow_kernels_and_tables
from triform.export.quantize.mixed.encoder import CalibrationInputs
from triform.export.quantize.mixed.encoder_decoder import EncoderDecoderGraphs, lower_pair_to_goal
from triform.export.quantize.smoothing import smooth_channels
from triform.export.report import Clock, Counted
from triform.export.runners import DecoderRunner, EncoderDecoderRunner, EncoderRunner, usable_cores
from triform.export.samples.sources import Sources
from triform.export.verify.encoder_decoder import ReferenceAnswers, quantized_encoder_decoder_parity
from triform.export.write import Stored, write_graph
from triform.runtime.bundle.export_record import QuantizedParity
from triform.runtime.bundle.manifest import CacheInfo, Quantization

_DEFAULT_BLOCK_SIZE = {"int8": 128, "int4": 32}
# Sources that are answered to calibrate the decoder, and the most tokens of an answer; and the same for a goal, which
# needs more to tell how inputs vary together.
_ANSWERS, _ANSWERS_FOR_GOAL = (8, 32), (24, 96)


@dataclass(frozen=True)
class FloatGraphs:
    """Both graphs in float32, on disk.

    Attributes:
        runner: of both.
        encoder: the encoder's.
        energies: where the decoder is to be calibrated, the names of the outputs that `add_energy_outputs` added.
    """

    runner: EncoderDecoderRunner
    encoder: FloatGraph
    energies: dict[str, str]


@dataclass(frozen=True)
class Calibration:
    """What an encoder-decoder is calibrated and compared on.

    Attributes:
        checkpoint: that the graphs were traced from.
        sources: with those for calibration.
        reference: with those for comparing.
        longest: most tokens of an answer.
        listening: what a speech model transcribes, where the words that change are counted.
    """

    checkpoint: Checkpoint
    sources: Sources
    reference: ReferenceAnswers
    longest: int
    listening: Listening | None = None

    @property
    def rows_worth(self) -> float:
        """See `choose_quantization`."""
        return ROWS_WORTH if self.sources.audio is None else ROWS_WORTH_OF_AUDIO

    @property
    def pad(self) -> int:
        """The token that pads a source."""
        return self.reference.pad


@dataclass(frozen=True)
class _Comparison:
    """What quantized graphs are compared with.

    Attributes:
        original: runs the float graphs.
        reference: the sources.
        cache: of the decoder.
        words: counts words that change; None where they are not counted.
    """

    original: EncoderDecoderRunner
    reference: ReferenceAnswers
    cache: CacheInfo
    words: CountedWords | None

    def of(self, encoder: ir.Model, decoder: ir.Model, folder: Path) -> QuantizedParity:
        """The differences of quantized graphs, which were written to a folder."""
        runner = runner_of(folder, self.cache)
        parity = quantized_encoder_decoder_parity(self.original.read, runner, self.reference)
        if self.words is None:
            return parity
        errors = self.words.errors(encoder, decoder, folder)
        return dataclasses.replace(parity, word_errors=errors.share, words=errors.words)


def runner_of(folder: Path, cache: CacheInfo) -> EncoderDecoderRunner:
    """A runner of the graphs in a folder."""
    cores = usable_cores()
    encoder = EncoderRunner(folder / ENCODER_FILE, cores)
    return EncoderDecoderRunner(encoder, DecoderRunner(folder / DECODER_FILE, cache, cores))


def write_floats_to_keep(graphs: Graphs, folder: Path, cache: CacheInfo) -> FloatGraphs:
    """Lower both graphs in place, and write them; an embedding that both look up is stored once."""
    stored: Stored = {}
    lower_to_float(graphs.decoder)
    write_graph(graphs.decoder, folder / DECODER_FILE, stored)
    encoder = write_float_graph(graphs.encoder, folder / ENCODER_FILE, usable_cores(), stored)
    return FloatGraphs(runner_of(folder, cache), encoder, {})


def write_floats_to_calibrate(graphs: Graphs, folder: Path, cache: CacheInfo) -> FloatGraphs:
    """Write both graphs with outputs to calibrate with; `graphs` stay as they are."""
    decoder = graphs.decoder.clone()
    energies = add_energy_outputs(decoder)
    lower_to_float(decoder)
    write_graph(decoder, folder / DECODER_FILE)
    encoder = write_calibration_graph(graphs.encoder, folder / ENCODER_FILE, usable_cores())
    return FloatGraphs(runner_of(folder, cache), encoder, energies)


def store_quantized(
    graphs: Graphs,
    floats: FloatGraphs,
    calibration: Calibration,
    options: ExportOptions,
    folder: Path,
    cache: CacheInfo,
    clock: Clock,
) -> tuple[tuple[Quantization, Quantization], QuantizedParity]:
    """Quantize both graphs in place, write them, and compare them with the float graphs.

    Args:
        graphs: fused.
        floats: from `write_floats_to_calibrate`.
        calibration: what to calibrate and compare on.
        options: with a scheme, or with a goal.
        folder: of the bundle, with all files but the graphs and the manifest.
        cache: of the decoder.
        clock: times the steps.

    Returns:
        how the encoder and the decoder are stored; and how close they are.

    Raises:
        InputError: the goal cannot be reached.
        UnsupportedError: see `lower_pair_to_goal`.
    """
    with clock.step("calibrate"):
        answers = _answers(floats.runner, calibration, options, clock.counted)
        words = None if calibration.listening is None else words_of_float(graphs, calibration.listening, clock)
    comparison = _Comparison(floats.runner, calibration.reference, cache, words)
    with clock.step("quantize"):
        for graph in (graphs.encoder, graphs.decoder):
            narrow_kernels_and_tables(graph)
        if options.quantize == MIXED:
            quantization = _quantize_to_goal(graphs, floats, calibration, answers, options, folder, comparison, clock)
        else:
            energies = without_shared(answer_energies(floats.runner, floats.energies, answers), graphs.encoder)
            energies = smooth_channels(graphs.decoder, energies)
            quantization = _quantize(graphs, floats.encoder, energies, calibration, options, clock.counted)
        _write(graphs.encoder, graphs.decoder, folder)
    with clock.step("compare"):
        parity = comparison.of(graphs.encoder, graphs.decoder, folder)
    return quantization, parity


def _answers(
    original: EncoderDecoderRunner, calibration: Calibration, options: ExportOptions, counted: Counted
) -> list[Answer]:
    """What the float graphs answer to sources from all over those for calibration."""
    count, longest = _ANSWERS_FOR_GOAL if options.quantize == MIXED else _ANSWERS
    samples = calibration.sources.samples.calibration
    places = np.unique(np.linspace(0, len(samples) - 1, count).round().astype(int))
    ends = tokens_of(calibration.checkpoint).eos
    return greedy_answers(
        original, [samples[place] for place in places], calibration.pad, calibration.reference.ids[0], ends,
        min(longest, calibration.longest), counted,
    )  # fmt: skip


def _quantize(
    graphs: Graphs,
    original: FloatGraph,
    energies: Mapping[str, torch.Tensor],
    calibration: Calibration,
    options: ExportOptions,
    counted: Counted,
) -> tuple[Quantization, Quantization]:
    samples = calibration.sources.samples.calibration
    encoder = quantize_encoder(graphs.encoder, options, original, samples, calibration.rows_worth, counted)
    name = options.quantize
    scheme = Scheme(BITS[name], options.block_size or _DEFAULT_BLOCK_SIZE[name], options.accuracy_level)
    count = lower_to_blocks(graphs.decoder, scheme, energies, counted=counted)
    decoder = Quantization(name, scheme.bits, scheme.block_size, accuracy_level=scheme.accuracy_level, matrices=count)
    return encoder, decoder


def _quantize_to_goal(
    graphs: Graphs,
    floats: FloatGraphs,
    calibration: Calibration,
    answers: list[Answer],
    options: ExportOptions,
    folder: Path,
    comparison: _Comparison,
    clock: Clock,
) -> tuple[Quantization, Quantization]:
    model, samples = calibration.checkpoint.model, calibration.sources.samples.calibration
    inputs = CalibrationInputs(linear_inputs_of(floats.encoder, samples), calibration.rows_worth)
    pair = EncoderDecoderGraphs(graphs.encoder, graphs.decoder, inputs)
    subject = differentiable_pair(model, answers)
    with (
        tempfile.TemporaryDirectory(dir=folder.parent) as moments,
        tempfile.TemporaryDirectory(dir=folder.parent) as trial,
    ):

        def compare(quantized: EncoderDecoderGraphs) -> QuantizedParity:
            _write(quantized.encoder, quantized.decoder, Path(trial))
            return comparison.of(quantized.encoder, quantized.decoder, Path(trial))

        return lower_pair_to_goal(pair, subject, compare, options, folder, Path(moments), clock)


def _write(encoder: ir.Model, decoder: ir.Model, folder: Path) -> None:
    """Write both graphs; what both have is stored once."""
    stored: Stored = {}
    write_graph(encoder, folder / ENCODER_FILE, stored)
    write_graph(decoder, folder / DECODER_FILE, stored)
