"""The tasks of encoders of audio: the class that loads a checkpoint, and the inputs and outputs of its graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_CTC_MAPPING_NAMES,
)

from triform.models.errors import UnsupportedModelError, first_line
from triform.models.spec import MASKS, EncoderTask, Frames

# Speech recognition by an encoder is by CTC, which writes all tokens at once; encoder-decoders have the same task.
RECOGNITION, SOUNDS = "automatic-speech-recognition", "audio-classification"

# The class that loads a checkpoint, by task.
AUDIO_HEADS: dict[str, Any] = {
    RECOGNITION: transformers.AutoModelForCTC,
    SOUNDS: transformers.AutoModelForAudioClassification,
}

# Errors of a model whose convolutions get too short a row.
_TOO_SHORT = (RuntimeError, ValueError, IndexError)
# Lengths of input, besides the breakpoints, whose frames are counted.
_CHECKED = (0, 1, 7, 61)
# No model needs more frames than this in a row.
_MOST_FRAMES = 16


def audio_task_of(config: PretrainedConfig) -> str | None:
    """The task of audio that a checkpoint was trained for, by the class that its config names; None for any other."""
    architecture = (config.architectures or [""])[0]
    for task, names in (
        (RECOGNITION, MODEL_FOR_CTC_MAPPING_NAMES),
        (SOUNDS, MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES),
    ):
        if architecture in names.values():
            return task
    return None


def has_audio_head(config: PretrainedConfig, task: str) -> bool:
    """Whether transformers loads a config with the head for a task of audio."""
    return task in AUDIO_HEADS and type(config) in AUDIO_HEADS[task]._model_mapping


def audio_task(examples: Mapping[str, torch.Tensor], frames: Frames | None) -> EncoderTask:
    """From audio to ``logits``: of each frame for speech recognition, of the whole for classification.

    Args:
        examples: from `audio_examples`.
        frames: from `frames_of`; None for classification.
    """
    return EncoderTask(tuple(examples), lambda results: {"logits": results["logits"]}, examples=examples, frames=frames)


def sounds_task(model: PreTrainedModel, rows: torch.Tensor, *, any_length: bool) -> EncoderTask:
    """From audio to ``logits`` of labels; rows of one run are not padded, so there is no mask.

    Args:
        model: with a head.
        rows: float (2, …), two rows of the model's input.
        any_length: whether the model reads other lengths too.
    """
    name = model.main_input_name
    return EncoderTask(
        (name,), lambda results: {"logits": results["logits"]}, examples={name: rows}, any_length=any_length
    )


def add_channel_axis(model: PreTrainedModel, rows: torch.Tensor) -> None:
    """Let a model that reads waveforms with an axis for their single channel read them without that axis too.

    Args:
        model: with a head for CTC; stays changed.
        rows: float (1, samples).
    """
    name = model.main_input_name

    def reads(inputs: torch.Tensor) -> bool:
        try:
            with torch.no_grad():
                model(**{name: inputs})
        except _TOO_SHORT:
            return False
        return True

    def insert(_: torch.nn.Module, __: Any, arguments: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return (), {**arguments, name: arguments[name][:, None]}

    if not reads(rows) and reads(rows[:, None]):
        model.register_forward_pre_hook(insert, with_kwargs=True)


def audio_examples(model: PreTrainedModel, rows: torch.Tensor, shorter: int) -> dict[str, torch.Tensor]:
    """Inputs of a model by its names: two rows of audio and, where the model takes one, the mask of padding.

    Args:
        model: of transformers.
        rows: float (2, samples) or (2, frames, bands).
        shorter: length of the second row, which becomes padded with zeros if there is a mask.
    """
    accepted = inspect.signature(model.forward).parameters
    mask_name = next((name for name in MASKS if name in accepted), None)
    if mask_name is None:
        return {model.main_input_name: rows}
    mask = torch.ones(rows.shape[:2], dtype=torch.int64)
    mask[1, shorter:] = 0
    padded = rows.clone()
    padded[1, shorter:] = 0
    return {model.main_input_name: padded, mask_name: mask}


def frames_of(model: PreTrainedModel, rows: torch.Tensor) -> Frames:
    """How many frames of logits a row of audio becomes, found by running the model on rows of different lengths.

    Args:
        model: with a head for CTC, in evaluation mode.
        rows: float (1, samples) or (1, frames, bands), much longer than the distance of two frames.

    Raises:
        UnsupportedModelError: the model does not read it, or the number of frames is not regular.
    """

    def count(length: int) -> int:
        with torch.no_grad():
            return int(model(**{model.main_input_name: rows[:, :length]}).logits.shape[1])

    return _regular(count, rows.shape[1])


def inner_frames(model: PreTrainedModel, longest: int) -> Frames | None:
    """How many frames the convolutions of a classifier make of a row; None for a model that does not say.

    Args:
        model: with a head for classification.
        longest: length of a row.

    Raises:
        UnsupportedModelError: the number of frames is not regular.
    """
    lengths = getattr(model, "_get_feat_extract_output_lengths", None)
    return None if lengths is None else _regular(lambda length: int(lengths(torch.tensor(length))), longest)


def _regular(count: Callable[[int], int], longest: int) -> Frames:
    """The rule that a count of frames follows, up to a length."""
    try:
        most = count(longest)
        # The shortest row of as many frames, and of one frame less.
        last = _first(lambda length: count(length) >= most, longest // 2, longest)
        before = _first(lambda length: count(length) >= most - 1, longest // 3, last - 1)
        frames = Frames(last - before, (last - before) * most - last)
        checked = [longest - part for part in (*_CHECKED, longest // 2, longest // 3)]
        regular = all(count(length) == frames.count(length) for length in checked if length > longest // 4)
    except _TOO_SHORT as error:
        raise UnsupportedModelError(f"it does not read audio: {first_line(error)}") from error
    if not regular:
        raise UnsupportedModelError("its frames do not follow the audio at regular intervals")
    return frames


def shortest_audio(model: PreTrainedModel, rows: torch.Tensor, frames: Frames) -> int:
    """The length of the shortest row that the model reads, found by trying.

    Args:
        model: as for `frames_of`.
        rows: as for `frames_of`.
        frames: from `frames_of`.

    Raises:
        UnsupportedModelError: it reads no short row.
    """
    failure = ""
    for count in range(1, _MOST_FRAMES + 1):
        length = count * frames.stride - frames.offset
        try:
            with torch.no_grad():
                model(**{model.main_input_name: rows[:, :length]})
        except _TOO_SHORT as error:
            failure = first_line(error)
            continue
        return length
    raise UnsupportedModelError(f"it reads no audio of up to {_MOST_FRAMES} frames: {failure}")


def shortest_sound(model: PreTrainedModel, rows: torch.Tensor) -> int:
    """The length of the shortest row that a classifier reads, found by trying.

    Args:
        model: with a head for classification.
        rows: float (1, …), a row that it reads.
    """

    def reads(length: int) -> bool:
        try:
            with torch.no_grad():
                result = model(**{model.main_input_name: rows[:, :length]})
        except _TOO_SHORT:
            return False
        return bool(torch.isfinite(result.logits).all())

    return _first(reads, 0, rows.shape[1])


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The first of the numbers after `low` and up to `high` for which a condition holds; it holds for `high`."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
