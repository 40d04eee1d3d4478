"""Counts the words that a speech model writes otherwise when its graphs are quantized, with the runtime's own loop."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from triform.export.describe.in_range import in_range
from triform.export.forms.encoder_decoders.graph import DECODER_FILE, ENCODER_FILE, Graphs
from triform.export.quantize.blocks import lower_to_float
from triform.export.quantize.encoder import write_lowered
from triform.export.report import Clock
from triform.export.runners import usable_cores
from triform.export.samples.voices import sentences
from triform.export.verify.heard_words import WordCount, WordErrors
from triform.export.write import Stored, describe_graph, write_graph
from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import GraphInfo, Manifest, Quantization
from triform.runtime.errors import TriformError, option
from triform.runtime.speech.model import SpeechModel

# Fewer words tell nothing of one percent.
_LEAST_WORDS = 30


@dataclass(frozen=True)
class Listening:
    """What a speech model is tried with.

    Attributes:
        manifest: of the bundle, without its graphs.
        folder: of the bundle, with its tokenizers.
        recordings: float32 (samples,) each, at the model's sampling rate.
    """

    manifest: Manifest
    folder: Path
    recordings: Sequence[NDArray[np.float32]]

    def model(self, encoder: ir.Model, decoder: ir.Model, written: Path) -> SpeechModel:
        """Open graphs as the bundle will be opened.

        Args:
            encoder: as it was written.
            decoder: as it was written.
            written: the folder of both.

        Raises:
            TriformError: the runtime refuses them.
        """
        infos = {
            name: describe_graph(graph, written / file, Quantization("none"), {})
            for name, graph, file in (("encoder", encoder, ENCODER_FILE), ("decoder", decoder, DECODER_FILE))
        }
        bundle = _Trial(self.folder, dataclasses.replace(self.manifest, graphs=infos), written)
        return SpeechModel(bundle, provider="cpu", threads=usable_cores())


@dataclass(frozen=True)
class _Trial(Bundle):
    """A bundle whose graphs lie in another folder.

    Attributes:
        written: that folder.
    """

    written: Path

    def graph(self, name: str) -> tuple[Path, GraphInfo]:
        """See `Bundle`."""
        info = self.manifest.graphs[name]
        return self.written / info.file, info


def listening_to(manifest: Manifest, folder: Path) -> Listening | None:
    """What to try a model with; None for one that does not hear.

    Models of Whisper's kind without tokens of languages understand English alone. Of all others nothing tells what they
    understand: they hear several languages.

    Args:
        manifest: of the bundle, without its graphs.
        folder: of the bundle, with its tokenizers.

    Raises:
        UnsupportedError: see `sentences`.
    """
    info = manifest.encoder_decoder
    if info is None or info.audio is None:
        return None
    english = info.speech is not None and not info.speech.languages
    recordings = sentences(info.audio.sampling_rate, info.audio.chunk_length or 0, english=english)
    return Listening(in_range(manifest)[0], folder, recordings)


class CountedWords:
    """Tells how many words change when graphs are quantized."""

    def __init__(self, listening: Listening, original: WordCount) -> None:
        self._listening, self._original = listening, original

    def errors(self, encoder: ir.Model, decoder: ir.Model, written: Path) -> WordErrors:
        """The words that quantized graphs write otherwise than the float graphs; arguments as of `Listening.model`."""
        return self._original.errors(self._listening.model(encoder, decoder, written))


def words_of_float(graphs: Graphs, listening: Listening, clock: Clock) -> CountedWords | None:
    """Let the float graphs transcribe.

    Args:
        graphs: fused; stay as they are.
        listening: what to transcribe.
        clock: gets a note where there is nothing to count.

    Returns:
        None if they cannot transcribe, or understand too little: then the loss of a speech model is told by its
        predictions alone.
    """
    encoder, decoder = graphs.encoder.clone(), graphs.decoder.clone()
    lower_to_float(decoder)
    with tempfile.TemporaryDirectory(dir=listening.folder.parent) as written:
        stored: Stored = {}
        write_lowered(encoder, Path(written) / ENCODER_FILE, stored)
        write_graph(decoder, Path(written) / DECODER_FILE, stored)
        try:
            original = WordCount(listening.model(encoder, decoder, Path(written)), listening.recordings)
        except TriformError as error:
            clock.notes.append(f"{option('max_loss')} is of predictions and not of words: {error}")
            return None
    if original.words < _LEAST_WORDS:
        clock.notes.append(
            f"{option('max_loss')} is of predictions and not of words: of the exporter's evaluation speech the float32 "
            f"graphs write {original.words} words that Whisper's thresholds take for understood"
        )
        return None
    return CountedWords(listening, original)
