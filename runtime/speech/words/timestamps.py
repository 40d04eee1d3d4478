"""Finds the time of each word in a window.

Source: openai/whisper's ``find_alignment`` and ``add_word_timestamps``: the decoder reads the transcript once more,
without timestamps, and its cross-attention gives the time of each token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from triform.runtime.arithmetic import log_probability
from triform.runtime.bundle.media_info import SpeechInfo
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.errors import BundleError, UnsupportedError
from triform.runtime.graphs.encoder_output import EncoderOutput
from triform.runtime.speech.transcript import Segment, Word
from triform.runtime.speech.words.alignment import alignment_matrix, token_frames
from triform.runtime.speech.words.grouping import (
    TimedWord,
    merge_punctuation,
    shorten,
    shorten_first,
    split_words,
    usual_length,
)

# A segment keeps its own time if its first or last word goes further than this beyond it, in seconds.
_BEYOND = 0.5


class WordFinder:
    """Finds the times of words in transcribed windows."""

    def __init__(self, model: SourceWriter) -> None:
        """Check that the bundle supports word timestamps.

        Raises:
            BundleError: the manifest lacks the timestamp tokens.
            UnsupportedError: the bundle was exported without word timestamps.
        """
        if not model.reader.attends:
            raise UnsupportedError(
                "this bundle has no word timestamps: export the model again, with `ExportOptions.word_timestamps`"
            )
        if model.info.speech is None:
            raise BundleError("the manifest lacks the timestamp tokens; export the model again")
        self._model = model
        self._speech: SpeechInfo = model.info.speech

    def add(
        self, encoded: EncoderOutput, start: Sequence[int], segments: Sequence[Segment], offset: float, length: float
    ) -> list[Segment]:
        """Return the segments with their words, and with times adjusted to them.

        Args:
            encoded: from `SourceReader.read`, of one window.
            start: the tokens that the window begins with, without previous text.
            segments: of the window, from first to last.
            offset: the window's beginning, in seconds.
            length: of the window's audio, in seconds.

        Raises:
            TriformError: onnxruntime failed.
        """
        spoken = [self._text_tokens(segment) for segment in segments]
        tokens = [token for ids in spoken for token in ids]
        if not tokens:
            return list(segments)
        words = self._words(encoded, start, tokens, length, segments[0].language)
        usual, before = usual_length(words), 0.0
        timed_segments = []
        for segment, part in zip(segments, _parts(words, [len(ids) for ids in spoken]), strict=True):
            part = shorten_first(merge_punctuation(part), usual, before)
            timed_segments.append(_fitted(segment, part, offset, usual))
            before = timed_segments[-1].end - offset
        return timed_segments

    def _text_tokens(self, segment: Segment) -> list[int]:
        return [token for token in segment.tokens if token < self._speech.timestamp_begin]

    def _words(
        self, encoded: EncoderOutput, start: Sequence[int], tokens: list[int], length: float, language: str | None
    ) -> list[TimedWord]:
        if start[-1] != self._speech.no_timestamps:
            start = [*start, self._speech.no_timestamps]
        first = len(start) - 1
        room = self._model.manifest.max_length - len(start) - 1
        kept = tokens[:room]
        logits, weights = self._model.reader.attend(encoded, [*start, *kept, self._model.manifest.tokens.eos[0]])
        probabilities = [np.exp(log_probability(logits[first + i], token)) for i, token in enumerate(kept)]
        matrix = alignment_matrix(weights[:, :, : self._frames(weights.shape[2], length)])[first:-1]
        times = token_frames(matrix) * self._seconds(weights.shape[2])
        spelled = split_words(kept, self._decode, language)
        edges = np.cumsum([0, *(len(ids) for _, ids in spelled)]).tolist()
        words = [
            TimedWord(text, ids, float(times[begin]), float(times[end]), [float(p) for p in probabilities[begin:end]])
            for (text, ids), (begin, end) in zip(spelled, pairwise(edges), strict=True)
        ]
        return shorten(words)

    def _frames(self, frames: int, length: float) -> int:
        """How many of the encoder's frames are audio."""
        return max(1, min(frames, int(length / self._seconds(frames))))

    def _seconds(self, frames: int) -> float:
        """The length of one of the encoder's frames."""
        audio = self._model.info.audio
        return (audio.chunk_length if audio and audio.chunk_length else 0) / frames

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._model.text.target.decode(list(tokens), skip_special_tokens=True)


def _parts(words: Sequence[TimedWord], lengths: Sequence[int]) -> Iterator[list[TimedWord]]:
    """Distribute words over segments by their numbers of tokens. A word across two segments goes to the first."""
    waiting = list(words)
    missing = 0
    for length in lengths:
        missing += length
        part: list[TimedWord] = []
        while waiting and missing > 0:
            word = waiting.pop(0)
            part.append(word)
            missing -= len(word.tokens)
        yield part


def _fitted(segment: Segment, words: list[TimedWord], offset: float, usual: float) -> Segment:
    """A segment with its words. At each end, the time of the segment or that of the word is adjusted to the other."""
    if not words:
        return segment
    shifted = [replace(word, start=offset + word.start, end=offset + word.end) for word in words]
    start, end = shifted[0].start, shifted[-1].end
    if segment.start < shifted[0].end and segment.start - _BEYOND > start:
        start = max(0.0, min(shifted[0].end - usual, segment.start))
        shifted[0] = replace(shifted[0], start=start)
    if segment.end > shifted[-1].start and segment.end + _BEYOND < end:
        end = max(shifted[-1].start + usual, segment.end)
        shifted[-1] = replace(shifted[-1], end=end)
    timed = [
        Word(round(word.start, 2), round(word.end, 2), word.text, float(np.mean(word.probabilities)))
        for word in shifted
    ]
    return replace(segment, start=round(start, 2), end=round(end, 2), words=timed)
