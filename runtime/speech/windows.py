"""Transcribes the windows of a recording, one after another or in batches, into segments."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from triform.runtime.bundle.media_info import AudioInfo, SpeechInfo
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.errors import BundleError, refuse_unused
from triform.runtime.graphs.encoder_output import EncoderOutput
from triform.runtime.likeliest import all_rows
from triform.runtime.media.log_mel import Features
from triform.runtime.speech.fallback import DecodedWindow, WindowDecoder
from triform.runtime.speech.options import TranscribeOptions
from triform.runtime.speech.prompt import LanguageVote, SpeechPrompt, check_language
from triform.runtime.speech.recording import (
    Recording,
    Windows,
    leading_silence,
    open_windows,
    quietest,
    reopened,
    speech_of,
)
from triform.runtime.speech.segments import TIME_STEP, WindowSegment, WindowSplit, split_window
from triform.runtime.speech.transcript import Segment
from triform.runtime.speech.words.timestamps import WordFinder

# Text decoded at a higher temperature is not used as the prompt of the next window.
_RELIABLE = 0.5
# The most windows that vote on the language.
_LISTENED = 10
# If less of a batched window is left untranscribed, it is not read again, in seconds.
_SHORTEST_REST = 1.0
# Batched windows are cut at the quietest place in their last seconds.
_SEARCHED = 5.0
# Leading silence this long is skipped, except for its end, in seconds.
_LEAST_SILENCE, _LEAD_IN = 1.0, 0.2


@dataclass(frozen=True)
class _Window:
    """Features, float32 (feature_size, length), from the recording's frame `first` on; `count` frames are audio."""

    features: Features
    first: int
    count: int


class WindowReader:
    """Transcribes with a model that predicts timestamps."""

    def __init__(
        self, model: SourceWriter, info: AudioInfo, options: TranscribeOptions, progress: Callable[[float], None]
    ) -> None:
        """Check that the model supports the options.

        Raises:
            BundleError: the manifest lacks the timestamp tokens.
            InputError: the model does not support an option.
            UnsupportedError: word timestamps are requested, and the bundle was exported without them.
        """
        speech = model.info.speech
        if speech is None:
            raise BundleError("the manifest lacks the timestamp tokens; export the model again")
        refuse_unused(
            "is of `vad`, which is off", voice_activity=options.voice_activity is not None and not options.vad
        )
        self._speech: SpeechInfo = speech
        self._model = model
        self._info = info
        self._options = options
        self._progress = progress
        self._prompt = SpeechPrompt(speech, model.manifest, model.info.decoder_start, model.text.target, options)
        self._decoder = WindowDecoder(model, options)
        self._words = WordFinder(model) if options.word_timestamps else None
        self._language = check_language(speech, options)
        self._probability: float | None = None
        # The first frame of the first window, and the encoder's output that its language was detected from.
        self._read_before: tuple[int, EncoderOutput] | None = None
        # Frames in a second, and between two timestamp tokens.
        self._rate = info.sampling_rate / info.hop_length
        self._step = round(self._rate * TIME_STEP)

    def read(self, recording: Recording) -> Iterator[Segment]:
        """Transcribe a recording; see `transcribe`."""
        windows = open_windows(recording, self._info)
        clips = self._clips(recording, windows)
        if self._language is None and self._speech.languages:
            known = list(clips)
            self._detect(windows, known)
            windows, clips = reopened(recording, self._info, windows), iter(known)
        return self._all_at_once(windows, clips) if self._options.batch > 1 else self._in_turn(windows, clips)

    def _clips(self, recording: Recording, windows: Windows) -> Iterator[tuple[int, int | None]]:
        """The parts of a recording to transcribe, as (first frame, frame after the last; None for the end)."""
        if not self._options.vad:
            return iter([(0, None)])
        longest = windows.length / self._rate
        spans = speech_of(recording, self._options.voice_activity, longest)
        return ((round(span.start * self._rate), round(span.end * self._rate)) for span in spans)

    def _in_turn(self, windows: Windows, clips: Iterator[tuple[int, int | None]]) -> Iterator[Segment]:
        previous = list(self._prompt.carried)
        for first, end in clips:
            while (window := self._next_window(windows, first, end)) is not None:
                first = window.first + window.count
                ((result, split, segments),) = self._decode([window], previous, keep_rest=False)
                if split.transcribed:
                    first = window.first + split.transcribed * self._step
                previous = self._remembered(previous, result, segments)
                yield from segments
                self._progress(first / self._rate)

    def _all_at_once(self, windows: Windows, clips: Iterator[tuple[int, int | None]]) -> Iterator[Segment]:
        waiting = self._cut(windows, clips)
        while group := list(islice(waiting, self._options.batch)):
            segments_of: list[list[Segment]] = [[] for _ in group]
            pending = list(enumerate(group))
            while pending:
                decoded = self._decode([window for _, window in pending], self._prompt.carried, keep_rest=True)
                rests = []
                for (index, window), (_, split, segments) in zip(pending, decoded, strict=True):
                    segments_of[index] += segments
                    rest = self._rest(window, split)
                    rests += [] if rest is None else [(index, rest)]
                pending = rests
            for window, segments in zip(group, segments_of, strict=True):
                yield from segments
                self._progress((window.first + window.count) / self._rate)

    def _rest(self, window: _Window, split: WindowSplit) -> _Window | None:
        """The part of a window that is not transcribed yet; None if there is none worth reading."""
        done = (split.transcribed or 0) * self._step
        if not done or window.count - done < self._rate * _SHORTEST_REST:
            return None
        features = np.pad(window.features[:, done:], ((0, 0), (0, done)))
        return _Window(features, window.first + done, window.count - done)

    def _cut(self, windows: Windows, clips: Iterator[tuple[int, int | None]]) -> Iterator[_Window]:
        """Clips as consecutive windows. A full window is cut short at the quietest place near its end."""
        for first, end in clips:
            while (window := self._next_window(windows, first, end)) is not None:
                if window.count == windows.length:
                    window = _window_until(window, quietest(window.features, round(_SEARCHED * self._rate)))
                first = window.first + window.count
                yield window

    def _next_window(self, windows: Windows, first: int, end: int | None) -> _Window | None:
        """The window that starts at a frame, or after the silence there; None at the end."""
        while (window := _window(windows, first, end)) is not None:
            silence = leading_silence(window.features[:, : window.count])
            if silence < min(window.count, self._rate * _LEAST_SILENCE):
                return window
            # A little silence stays, because a word may begin softly.
            first += silence if silence == window.count else silence - round(self._rate * _LEAD_IN)
        return None

    def _encode(self, group: Sequence[_Window]) -> EncoderOutput:
        before, self._read_before = self._read_before, None
        if before is not None and [window.first for window in group] == [before[0]] and self._options.batch == 1:
            return before[1]
        return self._model.reader.read({"input_features": np.stack([window.features for window in group])})

    def _detect(self, windows: Windows, clips: Sequence[tuple[int, int | None]]) -> None:
        """Let the first windows vote on the language, and keep the encoder's output for the first of them."""
        vote, first = LanguageVote(self._speech, self._options.no_speech_threshold), None
        for window in islice(self._ahead(windows, clips), _LISTENED):
            encoded = self._encode([window])
            logits = self._model.reader.batch_step(encoded).prefill([[self._model.info.decoder_start]])
            vote.add(all_rows(logits)[0])
            first = first or (window.first, encoded)
            if vote.decided:
                break
        if first is not None:
            language = vote.result()
            self._language, self._probability, self._read_before = language.code, round(language.probability, 4), first

    def _ahead(self, windows: Windows, clips: Sequence[tuple[int, int | None]]) -> Iterator[_Window]:
        """The windows of clips, one after another."""
        for first, end in clips:
            while (window := self._next_window(windows, first, end)) is not None:
                first = window.first + window.count
                yield window

    def _decode(
        self, group: Sequence[_Window], previous: Sequence[int], *, keep_rest: bool
    ) -> list[tuple[DecodedWindow, WindowSplit, list[Segment]]]:
        encoded = self._encode(group)
        start = self._prompt.start(self._language)
        decoded = self._decoder.decode(encoded, [[*self._prompt.before(previous), *start]] * len(group))
        results = []
        for index, (result, window) in enumerate(zip(decoded, group, strict=True)):
            split = self._split(result, window, keep_rest)
            segments = list(self._segments(window, result, split.segments))
            if self._words is not None:
                times = window.first / self._rate, window.count / self._rate
                segments = self._words.add(encoded.only([index]), start, segments, *times)
            results.append((result, split, segments))
        return results

    def _split(self, result: DecodedWindow, window: _Window, keep_rest: bool) -> WindowSplit:
        if self._decoder.is_silence(result):
            return WindowSplit([], None)
        steps = window.count // self._step
        if not self._options.timestamps:
            return WindowSplit([WindowSegment(0, steps, result.tokens)], None)
        return split_window(result.tokens, self._speech.timestamp_begin, steps, keep_rest=keep_rest)

    def _remembered(self, previous: list[int], result: DecodedWindow, segments: Sequence[Segment]) -> list[int]:
        """The text tokens that precede the next window."""
        if not self._options.conditioned:
            return previous
        if result.temperature > _RELIABLE:
            return []
        # At most as many as the model's context.
        latest = [token for segment in segments for token in segment.tokens]
        return (previous + latest)[-self._model.manifest.max_length :]

    def _segments(self, window: _Window, result: DecodedWindow, parts: Sequence[WindowSegment]) -> Iterator[Segment]:
        """Segments with times in the recording. Those without text or after the end of the audio are left out."""
        offset, length = window.first / self._rate, window.count / self._rate
        for part in parts:
            start, end = (min(steps * TIME_STEP, length) for steps in (part.start, part.end))
            text = self._decoder.text(part.tokens)
            if text.strip() and start < end:
                yield Segment(
                    round(offset + start, 2),
                    round(offset + end, 2),
                    text,
                    part.tokens,
                    result.avg_logprob,
                    result.no_speech_prob,
                    result.compression_ratio,
                    result.temperature,
                    language=self._language,
                    language_probability=self._probability,
                )


def _window(windows: Windows, first: int, end: int | None) -> _Window | None:
    """The window that starts at a frame, up to `end`; None if nothing is left."""
    if end is not None and first >= end:
        return None
    features, count = windows.window(first)
    if count <= 0:
        return None
    window = _Window(features, first, count)
    return window if end is None or first + count <= end else _window_until(window, end - first)


def _window_until(window: _Window, count: int) -> _Window:
    """A window with its features zeroed after `count` frames."""
    features = window.features.copy()
    features[:, count:] = 0
    return _Window(features, window.first, count)
