"""Determines how to export an encoder of audio: its input, its frames, its limits, and sample inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from triform.export.checkpoint.source import Checkpoint
from triform.export.describe.audio import read_audio_info
from triform.export.runners import EncoderRunner
from triform.export.samples.batches import Array, Sample, SampleSets, padded
from triform.export.samples.voices import speech
from triform.export.samples.vowels import synthetic_voice
from triform.export.verify.encoder import ReferenceBatch
from triform.export.verify.longest_audio import cut_to_longest, with_longest
from triform.models.attention.whole_blocks import attention_block
from triform.models.encoder.audio_tasks import (
    RECOGNITION,
    SOUNDS,
    add_channel_axis,
    audio_examples,
    audio_task,
    frames_of,
    inner_frames,
    shortest_audio,
    shortest_sound,
    sounds_task,
)
from triform.models.encoder.equal_lengths import without_padding
from triform.models.encoder.graph import reference_outputs
from triform.models.errors import UnsupportedModelError
from triform.models.spec import EncoderTask, Frames
from triform.runtime.bundle.manifest import ProblemType
from triform.runtime.bundle.media_info import AudioInfo
from triform.runtime.errors import UnsupportedError
from triform.runtime.media.audio_features import audio_features

# Number of rows for calibration and for evaluation, and the seconds of those compared with PyTorch.
_CALIBRATION, _EVALUATION, _PARITY_SECONDS = 4, 12, (2.7, 1.3, 3.9)
_CALIBRATION_SECONDS = 8.0
# Seconds of audio that frames are counted in.
_PROBED = 1.3
# Blocks of attention in the layer with the fewest frames: a graph that is traced with one has no room for more.
_BLOCKS = 1.5


@dataclass(frozen=True)
class AudioEncoder:
    """A checkpoint and how to export it.

    Attributes:
        checkpoint: the model; also the tokenizer if it writes.
        audio: how audio becomes the model's input.
        traced: the computation to trace.
        min_length: fewest inputs of a row: samples, or frames of features.
        samples: of its inputs.
        frames: what the model makes of a row, where that is known.
    """

    checkpoint: Checkpoint
    audio: AudioInfo
    traced: EncoderTask
    min_length: int
    samples: SampleSets
    frames: Frames | None = None

    @property
    def equal_lengths(self) -> bool:
        """Whether rows of one run must have the same number of inputs."""
        return self.traced.mask is None and not self.audio.fixed

    @property
    def problem_type(self) -> ProblemType | None:
        """The kind of classification, as transformers' pipeline scores it; None for speech recognition."""
        named = self.checkpoint.model.config.problem_type
        if self.checkpoint.source.task == RECOGNITION:
            return None
        return named if named in ("regression", "multi_label_classification") else "single_label_classification"


def audio_encoder(checkpoint: Checkpoint) -> AudioEncoder:
    """Determine how to export a checkpoint.

    Raises:
        ExportError: there is no feature extractor, or it computes something else than its settings say.
        UnsupportedError: the feature extractor is not supported, or the model does not read its features.
    """
    info = read_audio_info(checkpoint.source.model_folder)
    try:
        return _audio_encoder(checkpoint, info)
    except UnsupportedModelError as error:
        raise UnsupportedError(f"{checkpoint.source.name} cannot be exported: {error}") from error


def _audio_encoder(checkpoint: Checkpoint, info: AudioInfo) -> AudioEncoder:
    model = checkpoint.model
    rows = _rows(_PROBED, info)
    if checkpoint.source.task == SOUNDS:
        return _classifier(checkpoint, info, rows)
    if info.fixed:
        raise UnsupportedModelError("it reads audio of a single length, which is not supported for CTC")
    if info.kind == "waveform":
        add_channel_axis(model, rows[:1])
    frames = frames_of(model, rows[:1])
    block = attention_block(model)
    seconds = 0.0 if block is None else _BLOCKS * block * frames.stride * info.step / info.sampling_rate
    if seconds > _PROBED:
        rows = _rows(seconds, info)
    rows = rows[:, : _odd_length(frames, rows.shape[1])]
    shorter = _odd_length(frames, rows.shape[1] * 2 // 3)
    traced = audio_task(audio_examples(model, rows, shorter), frames)
    traced = without_padding(model, traced)
    shortest = shortest_audio(model, rows[:1], frames)
    return AudioEncoder(checkpoint, info, traced, shortest, _samples(traced, info, seconds), frames)


def _classifier(checkpoint: Checkpoint, info: AudioInfo, rows: torch.Tensor) -> AudioEncoder:
    model = checkpoint.model
    if info.fixed:
        traced = sounds_task(model, rows, any_length=False)
        return AudioEncoder(checkpoint, info, traced, 1, _samples(traced, info))
    frames = inner_frames(model, rows.shape[1])
    if frames is not None:
        rows = rows[:, : _odd_length(frames, rows.shape[1])]
    traced = sounds_task(model, rows, any_length=True)
    shortest = shortest_sound(model, rows[:1])
    return AudioEncoder(checkpoint, info, traced, shortest, _samples(traced, info), frames)


def read_at_once(encoder: AudioEncoder, runner: EncoderRunner) -> AudioEncoder:
    """With the most seconds that its graph reads at once, and calibration samples cut to that.

    Args:
        encoder: from `audio_encoder`.
        runner: of its graph in float32.
    """
    if encoder.audio.fixed:
        return encoder
    audio = with_longest(encoder.audio, runner, encoder.samples.parity[0])
    samples = replace(encoder.samples, calibration=cut_to_longest(audio, encoder.samples.calibration))
    return replace(encoder, audio=audio, samples=samples)


def _odd_length(frames: Frames, longest: int) -> int:
    """The length of a row of an odd number of frames, and of some input more.

    What a model does only with an odd number, such as padding pairs, is nothing for an even one; a graph that was
    traced with an even number would lack it. And the last of an odd number may depend on the padding after it.
    """
    count = frames.count(longest)
    odd = count - 1 if count % 2 == 0 else count - 2
    return odd * frames.stride - frames.offset + frames.stride // 2


def _rows(seconds: float, info: AudioInfo) -> torch.Tensor:
    return torch.from_numpy(np.stack([_features(seconds, seed, info) for seed in (0, 1)]))


def _features(seconds: float, seed: int, info: AudioInfo) -> Array:
    return audio_features(synthetic_voice(seconds, info.sampling_rate, seed), info)


def _samples(traced: EncoderTask, info: AudioInfo, longer: float = 0.0) -> SampleSets:
    """Samples of a few seconds; also one of `longer` seconds to compare with PyTorch, where that is more."""

    def sample(features: Array) -> Sample:
        arrays: dict[str, Array] = {traced.inputs[0]: features}
        return arrays if traced.mask is None else {**arrays, traced.mask: np.ones(len(features), np.int64)}

    rate = info.sampling_rate
    lengths = [*_PARITY_SECONDS, *([longer] if longer > max(_PARITY_SECONDS) else [])]
    parity = [sample(_features(seconds, seed, info)) for seed, seconds in enumerate(lengths)]
    spoken = [speech("calibration", _CALIBRATION_SECONDS, rate, seed) for seed in range(_CALIBRATION)]
    calibration = [sample(audio_features(sound, info)) for sound in spoken]
    kept_aside = [speech("evaluation", max(_PARITY_SECONDS), rate, seed) for seed in range(_EVALUATION)]
    evaluation = [sample(audio_features(sound, info)) for sound in kept_aside]
    return SampleSets(parity, calibration, evaluation)


def audio_batches(encoder: AudioEncoder) -> list[list[Sample]]:
    """Samples to compare with PyTorch: one batch of all lengths, or a batch for each of several lengths."""
    samples = list(encoder.samples.parity)
    if encoder.traced.mask is not None or encoder.audio.fixed:
        return [samples]
    name, frames = encoder.traced.inputs[0], encoder.frames
    step = 1 if frames is None else frames.stride
    shortest = min(len(sample[name]) for sample in samples)
    # An odd and an even number of frames, and a short row.
    lengths = {shortest, shortest - step, max(encoder.min_length, shortest // 5)}
    return [[{name: sample[name][:length]} for sample in samples] for length in sorted(lengths, reverse=True)]


def audio_reference(encoder: AudioEncoder, samples: Sequence[Sample]) -> ReferenceBatch:
    """Run PyTorch's model on a batch."""
    outputs = audio_outputs(encoder, padded(samples, 0))
    return ReferenceBatch(samples, outputs, 0, frame_counts(encoder, samples))


def frame_counts(encoder: AudioEncoder, samples: Sequence[Sample]) -> list[int]:
    """The frames of logits of each sample; its length where there are no frames."""
    frames, name = encoder.traced.frames, encoder.traced.inputs[0]
    return [len(sample[name]) if frames is None else frames.count(len(sample[name])) for sample in samples]


def audio_outputs(encoder: AudioEncoder, arrays: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
    """PyTorch's outputs for the arrays of a batch."""
    inputs = tuple(torch.from_numpy(arrays[name]) for name in encoder.traced.inputs)
    return reference_outputs(encoder.checkpoint.model, encoder.traced, inputs)
