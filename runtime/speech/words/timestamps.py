"""When each word of a window was said.

Source: openai/whisper's ``find_alignment`` and ``add_word_timestamps``: what was written is read once more, without
tokens of time, and the decoder's attention to the sound says where each token was heard.
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

# A segment's own time holds, rather than its first or last word's, where the word goes so far beyond it, in seconds.
_BEYOND = 0.5


class WordFinder:
    """Finds words in windows that were written down."""

    def __init__(self, model: SourceWriter) -> None:
        """Check that the model can.

        Raises:
            UnsupportedError: the bundle was exported without what this needs.
        """
        if not model.reader.attends:
            raise UnsupportedError(
                "this bundle cannot tell when words are said: export the model again, "
                "with `ExportOptions.word_timestamps`"
            )
        if model.info.speech is None:
            raise BundleError("the bundle does not say what its tokens of time are; export the model again")
        self._model = model
        self._speech: SpeechInfo = model.info.speech

    def add(
        self, encoded: EncoderOutput, start: Sequence[int], segments: Sequence[Segment], offset: float, length: float
    ) -> list[Segment]:
        """The same segments with their words, and with times that fit these.

        Args:
            encoded: from `SourceReader.read`, of the one window.
            start: the tokens a window begins with, without text before.
            segments: of the window, from first to last.
            offset: the window's beginning, in seconds.
            length: how many seconds of it are sound.

        Raises:
            TriformError: onnxruntime failed.
        """
        spoken = [self._text_tokens(segment) for segment in segments]
        tokens = [token for ids in spoken for token in ids]
        if not tokens:
            return list(segments)
        words = self._words(encoded, start, tokens, length, segments[0].language)
        usual, before = usual_length(words), 0.0
        found = []
        for segment, part in zip(segments, _parts(words, [len(ids) for ids in spoken]), strict=True):
            part = shorten_first(merge_punctuation(part), usual, before)
            found.append(_fitted(segment, part, offset, usual))
            before = found[-1].end - offset
        return found

    def _text_tokens(self, segment: Segment) -> list[int]:
        return [token for token in segment.tokens if token < self._speech.timestamp_begin]

    def _words(
        self, encoded: EncoderOutput, start: Sequence[int], tokens: list[int], length: float, language: str | None
    ) -> list[TimedWord]:
        if start[-1] != self._speech.no_timestamps:
            start = [*start, self._speech.no_timestamps]
        first = len(start) - 1
        room = self._model.manifest.max_length - len(start) - 1
        said = tokens[:room]
        logits, weights = self._model.reader.attend(encoded, [*start, *said, self._model.manifest.tokens.eos[0]])
        likely = [np.exp(log_probability(logits[first + i], token)) for i, token in enumerate(said)]
        matrix = alignment_matrix(weights[:, :, : self._frames(weights.shape[2], length)])[first:-1]
        times = token_frames(matrix) * self._seconds(weights.shape[2])
        spelled = split_words(said, self._decode, language)
        edges = np.cumsum([0, *(len(ids) for _, ids in spelled)]).tolist()
        found = [
            TimedWord(text, ids, float(times[begin]), float(times[end]), [float(one) for one in likely[begin:end]])
            for (text, ids), (begin, end) in zip(spelled, pairwise(edges), strict=True)
        ]
        return shorten(found)

    def _frames(self, frames: int, length: float) -> int:
        """Of the encoder's, those of the sound."""
        return max(1, min(frames, int(length / self._seconds(frames))))

    def _seconds(self, frames: int) -> float:
        """What one of the encoder's frames lasts."""
        audio = self._model.info.audio
        return (audio.chunk_length if audio and audio.chunk_length else 0) / frames

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._model.text.target.decode(list(tokens), skip_special_tokens=True)


def _parts(words: Sequence[TimedWord], lengths: Sequence[int]) -> Iterator[list[TimedWord]]:
    """The words of each segment, by how many tokens it has; a word that goes across is the first one's."""
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
    """A segment with its words; one of the two times gives way to the other at each end."""
    if not words:
        return segment
    found = [replace(word, start=offset + word.start, end=offset + word.end) for word in words]
    start, end = found[0].start, found[-1].end
    if segment.start < found[0].end and segment.start - _BEYOND > start:
        start = max(0.0, min(found[0].end - usual, segment.start))
        found[0] = replace(found[0], start=start)
    if segment.end > found[-1].start and segment.end + _BEYOND < end:
        end = max(found[-1].start + usual, segment.end)
        found[-1] = replace(found[-1], end=end)
    timed = [
        Word(round(word.start, 2), round(word.end, 2), word.text, float(np.mean(word.probabilities))) for word in found
    ]
    return replace(segment, start=round(start, 2), end=round(end, 2), words=timed)
