"""Whisper as transformers runs it, and as bundles of it run: exported once a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

import triform
from tests.helpers.sounds import samples_of
from triform.export.options import ExportOptions


@pytest.fixture(scope="session")
def whisper_bundle(whisper_folder, export_once) -> Path:
    """Of float32, that can tell where words are."""
    return export_once("whisper-float", whisper_folder, ExportOptions(quantize="none", word_timestamps=True))


@pytest.fixture(scope="session")
def whisper_int8(whisper_folder, export_once) -> Path:
    return export_once("whisper-int8", whisper_folder, ExportOptions(quantize="int8"))


@pytest.fixture(scope="session")
def whisper(whisper_bundle):
    return triform.load(whisper_bundle)


@pytest.fixture(scope="session")
def reference(whisper_folder):
    return WhisperForConditionalGeneration.from_pretrained(whisper_folder, attn_implementation="eager").eval()


@pytest.fixture(scope="session")
def extractor(whisper_folder):
    return WhisperFeatureExtractor.from_pretrained(whisper_folder)


@pytest.fixture(scope="session")
def sounds(speech_clips):
    """Each clip's samples, float32 at 16 kHz."""
    return [samples_of(path) for path, _ in speech_clips]


@pytest.fixture(scope="session")
def long_sound(sounds):
    """All clips, and three of them in another order: 40 s, two windows and more."""
    return np.concatenate([*sounds, *sounds[2::-1]])
