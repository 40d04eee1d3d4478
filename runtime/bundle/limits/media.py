"""Ranges of the values that describe how images and audio become a model's input, and of a speech model's tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from triform.runtime.bundle.limits.contract import Limit, token_id, within
from triform.runtime.bundle.media_info import (
    AudioInfo,
    CtcInfo,
    DeltasInfo,
    ImageInfo,
    MelInfo,
    PatchesInfo,
    SpeechInfo,
)

# In pixels; an image of this size is a quarter of a gigabyte of float32.
_LONGEST_EDGE = 2**14
# Means, deviations and padding are within a few units of 0; with such numbers float32 computes without overflow.
_LARGEST_VALUE = 1e6
# In Hz, the same as for audio files.
_RATES = (1000, 1_000_000)
_LONGEST_CHUNK = 3600
# In seconds: a few frames.
_SHORTEST_PIECE = 0.2
# Points of a Fourier transform: more than a second at every usual sampling rate.
_LONGEST_FRAME = 2**16
_MOST_STACKED = 64
# Frames: an hour at the usual distance of 10 ms.
_LONGEST_ROW = 360_000
_SMALLEST_FLOOR = 1e-30
# Frames: a second at the usual distance.
_FARTHEST_REACH = 100
# Inputs from one frame of logits to the next: a second at the highest sampling rate.
_LONGEST_STRIDE = 1_000_000
# The steps of 0.02 s in the longest chunk; a window of Whisper has 1500.
_LATEST_TIMESTAMP = _LONGEST_CHUNK * 50


def image_limits(info: ImageInfo, key: str) -> Iterator[Limit]:
    """Yield the rules for images; `key` is that of the values in the manifest."""
    yield Limit(f"{key}.channels", info.channels, info.channels == 3, "3")
    if info.patches is None:
        yield from _size_limits(info, key)
    else:
        yield from _patches_limits(info, info.patches, key)
    in_order = info.rescale is not None or not info.resize_after_rescale
    yield Limit(f"{key}.resize_after_rescale", info.resize_after_rescale, in_order, "false where there is no rescale")
    if info.rescale is not None:
        fits = 0 < info.rescale <= _LARGEST_VALUE
        yield Limit(f"{key}.rescale", info.rescale, fits, f"above 0 and at most {_LARGEST_VALUE:g}")
    yield from _channel_limits(f"{key}.mean", info.mean, info.channels, -_LARGEST_VALUE)
    yield from _channel_limits(f"{key}.std", info.std, info.channels, 1 / _LARGEST_VALUE)
    both = (info.mean is None) == (info.std is None)
    yield Limit(f"{key}.std", info.std, both, "given where mean is, and only there")


def _size_limits(info: ImageInfo, key: str) -> Iterator[Limit]:
    """Yield the rules for the edges of an image, in pixels."""
    yield within(f"{key}.height", info.height, 1, _LONGEST_EDGE)
    yield within(f"{key}.width", info.width, 1, _LONGEST_EDGE)
    yield Limit(f"{key}.resize", info.resize, len(info.resize) in (1, 2), "one or two numbers")
    for index, edge in enumerate(info.resize):
        yield within(f"{key}.resize[{index}]", edge, 1, _LONGEST_EDGE)
    size = [info.height, info.width]
    last = info.crop if info.crop is not None else info.resize
    yield Limit(f"{key}.{'resize' if info.crop is None else 'crop'}", last, last == size, f"the image's size {size}")
    inside = all(edge <= whole for edge, whole in zip(size, info.resize * 2, strict=False))
    yield Limit(f"{key}.crop", info.crop, inside, f"within resize {info.resize}")


def _patches_limits(info: ImageInfo, patches: PatchesInfo, key: str) -> Iterator[Limit]:
    """Yield the rules for an image that is cut into patches, which has no size of its own."""
    for name in ("height", "width"):
        yield Limit(f"{key}.{name}", getattr(info, name), getattr(info, name) == 0, "0 for patches")
    yield Limit(f"{key}.resize", info.resize, not info.resize, "empty for patches")
    yield Limit(f"{key}.crop", info.crop, info.crop is None, "null for patches")
    later = info.resize_after_rescale
    yield Limit(f"{key}.resize_after_rescale", later, not later, "false for patches")
    yield within(f"{key}.patches.size", patches.size, 1, _LONGEST_EDGE)
    yield within(f"{key}.patches.count", patches.count, 1, max(1, _LONGEST_EDGE**2 // max(1, patches.size) ** 2))


def audio_limits(info: AudioInfo, key: str) -> Iterator[Limit]:
    """Yield the rules for audio; `key` is that of the values in the manifest."""
    yield within(f"{key}.sampling_rate", info.sampling_rate, *_RATES)
    yield within(f"{key}.padding_value", info.padding_value, -_LARGEST_VALUE, _LARGEST_VALUE)
    yield within(f"{key}.chunk_length", info.chunk_length, 1, _LONGEST_CHUNK)
    yield within(f"{key}.longest", info.longest, _SHORTEST_PIECE, _LONGEST_CHUNK)
    if info.kind == "waveform":
        yield Limit(f"{key}.feature_size", info.feature_size, info.feature_size == 1, "1 for a waveform")
        for name in ("win_length", "n_fft", "hop_length"):
            yield Limit(f"{key}.{name}", getattr(info, name), getattr(info, name) == 0, "0 for a waveform")
        means, variances = info.normalize_means, info.normalize_vars
        yield Limit(f"{key}.normalize_vars", variances, means == variances, "as normalize_means is for a waveform")
        yield Limit(f"{key}.stacked", info.stacked, info.stacked == 1, "1 for a waveform")
        yield within(f"{key}.multiple", info.multiple, 1, _LONGEST_FRAME)
        yield within(f"{key}.variance_floor", info.variance_floor, 0, _LARGEST_VALUE)
        return
    yield Limit(f"{key}.multiple", info.multiple, info.multiple == 1, "1 for all but a waveform")
    yield within(f"{key}.n_fft", info.n_fft, 2, _LONGEST_FRAME)
    yield within(f"{key}.win_length", info.win_length, 2, info.n_fft)
    # Otherwise samples between two frames would be skipped.
    yield within(f"{key}.hop_length", info.hop_length, 1, info.win_length)
    # A transform of n_fft points has this many frequencies.
    yield within(f"{key}.feature_size", info.feature_size, 1, info.n_fft // 2 + 1)
    if info.kind == "log_mel":
        chunk = info.chunk_length
        yield Limit(f"{key}.chunk_length", chunk, chunk is not None, "a number of seconds for log_mel")
        yield Limit(f"{key}.win_length", info.win_length, info.win_length == info.n_fft, "n_fft for log_mel")
    yield within(f"{key}.length", info.length, 1, _LONGEST_ROW)
    yield within(f"{key}.scale", info.scale, 1 / _LARGEST_VALUE, _LARGEST_VALUE)
    yield within(f"{key}.mean", info.mean, -_LARGEST_VALUE, _LARGEST_VALUE)
    yield within(f"{key}.deviation", info.deviation, 1 / _LARGEST_VALUE, _LARGEST_VALUE)
    yield within(f"{key}.stacked", info.stacked, 1, 1 if info.kind == "log_mel" else _MOST_STACKED)
    for name in ("variance_floor", "deviation_floor"):
        yield within(f"{key}.{name}", getattr(info, name), 0, _LARGEST_VALUE)
    given = info.mel is not None
    yield Limit(f"{key}.mel", given, given == (info.kind == "mel"), "given for the kind mel, and only there")
    if info.mel is not None:
        yield from _mel_limits(info.mel, info.sampling_rate, f"{key}.mel")
    given = info.deltas is not None
    yield Limit(
        f"{key}.deltas", given, given == (info.kind == "mel_deltas"), "given for the kind mel_deltas, and only there"
    )
    if info.deltas is not None:
        yield from _deltas_limits(info.deltas, f"{key}.deltas")


def _mel_limits(info: MelInfo, sampling_rate: int, key: str) -> Iterator[Limit]:
    yield within(f"{key}.lowest", info.lowest, 0, sampling_rate / 2)
    fits = info.lowest < info.highest <= sampling_rate / 2
    yield Limit(f"{key}.highest", info.highest, fits, f"above lowest and at most {sampling_rate / 2:g}")
    slaney = info.filters == "slaney"
    yield Limit(f"{key}.lowest", info.lowest, not slaney or info.lowest == 0, "0 for filters of slaney")
    yield within(f"{key}.preemphasis", info.preemphasis, 0, 1)
    # A logarithm of 0 is no number.
    yield within(f"{key}.floor", info.floor, _SMALLEST_FLOOR, _LARGEST_VALUE)


def _deltas_limits(info: DeltasInfo, key: str) -> Iterator[Limit]:
    yield within(f"{key}.reach", info.reach, 1, _FARTHEST_REACH)
    yield within(f"{key}.range", info.range, 0, _LARGEST_VALUE)


def ctc_limits(info: CtcInfo, min_length: int, vocab_size: int, key: str) -> Iterator[Limit]:
    """Yield the rules for the frames of a model's logits.

    Args:
        info: the values.
        min_length: fewest inputs of a row.
        vocab_size: number of logits.
        key: of the values in the manifest.
    """
    yield token_id(f"{key}.blank", info.blank, vocab_size)
    yield within(f"{key}.stride", info.stride, 1, _LONGEST_STRIDE)
    yield within(f"{key}.offset", info.offset, -_LONGEST_STRIDE, _LONGEST_STRIDE)
    fits = min_length + info.offset >= info.stride
    yield Limit(f"{key}.offset", info.offset, fits, f"such that a row of {min_length} has a frame")


def speech_limits(info: SpeechInfo, vocab_size: int, layers: int, key: str) -> Iterator[Limit]:
    """Yield the rules for a speech model's tokens.

    Args:
        info: the tokens.
        vocab_size: size of the output vocabulary.
        layers: number of decoder layers.
        key: of the tokens in the manifest.
    """
    for name in ("timestamp_begin", "no_timestamps", "transcribe", "translate", "no_speech", "previous"):
        yield token_id(f"{key}.{name}", getattr(info, name), vocab_size)
    for language, token in info.languages.items():
        yield token_id(f"{key}.languages.{language}", token, vocab_size)
    expected, task = info.default_language, info.default_task
    known = expected is None or expected in info.languages
    yield Limit(f"{key}.default_language", expected, known, "one of the languages listed")
    yield Limit(f"{key}.default_task", task, task in (None, "transcribe", "translate"), "transcribe or translate")
    latest = info.max_initial_timestamp_index
    yield within(f"{key}.max_initial_timestamp_index", latest, 0, _LATEST_TIMESTAMP)
    for index, pair in enumerate(info.alignment_heads):
        place = f"{key}.alignment_heads[{index}]"
        yield Limit(place, pair, len(pair) == 2, "a layer and a head")
        if len(pair) == 2:
            yield within(f"{place}[0]", pair[0], 0, layers - 1)
            yield within(f"{place}[1]", pair[1], 0)


def _channel_limits(key: str, values: Sequence[float] | None, channels: int, least: float) -> Iterator[Limit]:
    if values is None:
        return
    yield Limit(key, values, len(values) == channels, "a number for each channel")
    for index, value in enumerate(values):
        yield within(f"{key}[{index}]", value, least, _LARGEST_VALUE)
