"""Labels of recordings against transformers' pipeline, with a waveform and a spectrogram."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
import transformers

import triform
from tests.checkpoints.ctc import SMALL_CONVOLUTIONS
from tests.helpers.bundles import read_manifest_json, write_manifest
from triform.export.options import ExportOptions
from triform.export.samples.vowels import synthetic_voice
from triform.runtime.errors import InputError

RATE = 16000
_SMALL = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 40}
_MODELS = {
    "wav2vec2": (transformers.Wav2Vec2FeatureExtractor(), {**_SMALL, **SMALL_CONVOLUTIONS, "classifier_proj_size": 20}),
    "audio-spectrogram-transformer": (
        transformers.ASTFeatureExtractor(num_mel_bins=20, max_length=120),
        {**_SMALL, "num_mel_bins": 20, "max_length": 120, "patch_size": 8},
    ),
}


@pytest.fixture(scope="module", params=_MODELS)
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    extractor, settings = _MODELS[request.param]
    extractor.save_pretrained(folder)
    torch.manual_seed(0)
    labels = {0: "dog", 1: "rain", 2: "talk", 3: "bell"}
    config = transformers.AutoConfig.for_model(request.param, id2label=labels, **settings)
    model = transformers.AutoModelForAudioClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(folder, export_once):
    return export_once(f"{folder.name}-audio", folder, ExportOptions(quantize="none"))


def test_labels_and_scores_are_transformers(folder, bundle):
    pipeline = transformers.pipeline(
        "audio-classification",
        model=transformers.AutoModelForAudioClassification.from_pretrained(folder).eval(),
        feature_extractor=transformers.AutoFeatureExtractor.from_pretrained(folder),
    )
    # Shorter and longer than the spectrogram's 1.2 s.
    sounds = [synthetic_voice(seconds, RATE, seed) for seed, seconds in enumerate((0.61, 2.07))]
    for sound, found in zip(sounds, triform.load_encoder(bundle).classify_audio(sounds), strict=True):
        expected = pipeline({"raw": sound, "sampling_rate": RATE}, top_k=4)
        assert [label for label, _ in found] == [item["label"] for item in expected]
        np.testing.assert_allclose([score for _, score in found], [item["score"] for item in expected], atol=1e-5)


def test_the_command(call, bundle, tmp_path):
    sound = synthetic_voice(1.1, RATE, 3)
    soundfile.write(tmp_path / "a.wav", sound, RATE, subtype="FLOAT")
    (((best, score), *_),) = triform.load_encoder(bundle).classify_audio([sound])
    code, out, err = call("classify-audio", bundle, tmp_path / "a.wav")
    assert (code, out, err) == (0, f"{score:.4f}\t{best}\t{tmp_path / 'a.wav'}\n", "")
    code, out, _ = call("classify-audio", bundle, tmp_path / "a.wav", "--json", "--top-k", "2")
    assert (code, len(json.loads(out)["labels"])) == (0, 2)
    code, _, err = call("transcribe", bundle, tmp_path / "a.wav")
    assert (code, "use `triform classify-audio`" in err) == (1, True)


def test_no_sound_is_refused(bundle):
    with pytest.raises(InputError, match="too short"):
        triform.load_encoder(bundle).classify_audio([np.zeros(0, np.float32)])


def test_a_recording_longer_than_the_positions_is_refused(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    manifest = read_manifest_json(tmp_path / "bundle")
    manifest["encoder"]["audio"]["longest"] = 1.5
    write_manifest(tmp_path / "bundle", manifest)
    encoder = triform.load_encoder(tmp_path / "bundle")
    assert encoder.classify_audio([synthetic_voice(1.5, RATE, 0)])
    if manifest["encoder"]["audio"]["length"] is not None:
        # One that reads a single length cuts it.
        assert encoder.classify_audio([synthetic_voice(1.6, RATE, 0)])
        return
    with pytest.raises(
        InputError, match=r"of 1\.6 s is longer than the 1\.5 s that this model has positions for; cut it"
    ):
        encoder.classify_audio([synthetic_voice(1.6, RATE, 0)])
