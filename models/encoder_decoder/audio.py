"""Finds how the encoder of an encoder-decoder takes audio: by which name, and in which lengths."""

from __future__ import annotations

from typing import Any

import torch

from triform.models.errors import UnsupportedModelError

# Frames of one to 480 samples fit into this many without a rest, if their length is a usual one. In samples.
_DIVISIBLE = 9600


def audio_input(model: Any) -> str:
    """The name of the argument for audio: a model of two others has one called ``inputs`` besides its encoder's."""
    name = str(model.main_input_name)
    return str(model.get_encoder().main_input_name) if name == "inputs" else name


def length_multiple(model: Any, sampling_rate: int) -> int:
    """What the number of samples of a row must be a multiple of, found by running the encoder on rows.

    Args:
        model: an encoder-decoder whose encoder reads waveforms, in evaluation mode.
        sampling_rate: of the samples, in Hz.

    Raises:
        UnsupportedModelError: the encoder reads none of the lengths that are tried.
    """
    encoder = model.get_encoder()
    longest = max(1, sampling_rate // _DIVISIBLE) * _DIVISIBLE
    row = torch.sin(torch.arange(longest)[None] / 7)

    def reads(length: int) -> bool:
        try:
            with torch.no_grad():
                encoder(row[:, :length])
        except RuntimeError:
            return False
        return True

    shorter = next((less for less in range(1, longest // 2) if reads(longest - less)), None)
    if shorter is None or not reads(longest):
        raise UnsupportedModelError("its encoder does not read waveforms of usual lengths")
    return shorter
