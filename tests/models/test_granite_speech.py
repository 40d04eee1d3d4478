"""Granite Speech 5: features with their changes over time, and attention within blocks, against transformers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

import triform
from tests.checkpoints.ctc import TOKENS, save_ctc_tokenizer
from tests.helpers.mel_stand_in import with_granite_speech
from tests.helpers.signals import RATE, SOUNDS
from triform.export.describe.audio import audio_info, read_audio_info
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.samples.vowels import synthetic_voice
from triform.runtime.errors import ExportError
from triform.runtime.media.audio_features import audio_features

BANDS, BLOCK = 20, 40
# 320 samples to a row of features. The layers see all rows, half of them, and a quarter: several blocks, whole blocks,
# one block, and less.
ROWS = (65, 160, 171, 80, 15, 4)


@pytest.fixture
def extractor_class(monkeypatch):
    return with_granite_speech(monkeypatch)


@pytest.mark.parametrize("length", [257, 479, 480, 800, 16000, 16160, 16239, 40001])
@pytest.mark.parametrize(
    "settings",
    [{}, {"num_mel_bins": 33, "win_length": 333, "hop_length": 128, "delta_win_length": 7, "logmel_floor_db": 2.5}],
    ids=["as published", "other settings"],
)
def test_features_are_transformers(extractor_class, settings, length):
    extractor = extractor_class(**settings)
    info = audio_info(extractor)
    for samples in (SOUNDS["voice then silence"][-length - 20000 :][:length], SOUNDS["tone"][:length]):
        expected = extractor(samples, sampling_rate=RATE, return_tensors="np")
        assert expected["attention_mask"].all()
        found = audio_features(samples, info)
        assert found.shape == expected["input_features"][0].shape
        assert np.abs(found - expected["input_features"][0]).max() <= 1e-5


def test_sounds_shorter_than_transformers_reads(extractor_class):
    info = audio_info(extractor_class())
    assert audio_features(SOUNDS["noise"][:159], info).shape == (0, info.width)
    # Two frames, the second of silence; torch refuses to reflect more than there is.
    found = audio_features(SOUNDS["noise"][:160], info)
    assert found.shape == (1, 320)
    assert np.isfinite(found).all()


def test_batches_of_any_length_are_transformers(extractor_class, tmp_path):
    folder, bundle = tmp_path / "model", tmp_path / "bundle"
    folder.mkdir()
    _save(folder, extractor_class(num_mel_bins=BANDS))
    export(folder, bundle, ExportOptions(quantize="none"))
    model = transformers.AutoModelForCTC.from_pretrained(folder, attn_implementation="eager").eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    sounds = [synthetic_voice(rows * 320 / RATE, RATE, seed) for seed, rows in enumerate(ROWS)]
    found = triform.load_speech(bundle).log_probs(sounds)
    for rows, sound, actual in zip(ROWS, sounds, found, strict=True):
        inputs = extractor(sound, sampling_rate=RATE, return_tensors="pt")
        assert inputs["input_features"].shape == (1, rows, 4 * BANDS)
        with torch.no_grad():
            expected = model(**inputs).logits.log_softmax(-1)[0].numpy()
        assert actual.shape == expected.shape == (rows // 4, len(TOKENS))
        np.testing.assert_allclose(actual, expected, atol=2e-3)


def test_what_to_install_is_named(tmp_path, monkeypatch):
    def load(*_, **__):
        raise ImportError("\nSomeFeatureExtractor requires the torchaudio library but it was not found. Please …\n")

    monkeypatch.setattr(transformers.AutoFeatureExtractor, "from_pretrained", load)
    with pytest.raises(ExportError, match=r"needs another package: pip install torchaudio$"):
        read_audio_info(tmp_path)


def _save(folder, extractor):
    extractor.save_pretrained(folder)
    save_ctc_tokenizer(folder)
    torch.manual_seed(0)
    encoder = transformers.GraniteSpeech5EncoderConfig(
        vocab_size=len(TOKENS), hidden_size=24, intermediate_size=40, num_hidden_layers=4, num_attention_heads=3,
        num_mel_bins=BANDS, max_position_embeddings=47, context_size=BLOCK, conv_kernel_size=3, subsample_layers=[0, 2],
    )  # fmt: skip
    config = transformers.GraniteSpeech5CTCConfig(vocab_size=len(TOKENS), encoder_config=encoder)
    model = transformers.GraniteSpeech5ForCTC(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.mul_(1 + 0.3 * torch.rand_like(buffer))
    model.save_pretrained(folder)
