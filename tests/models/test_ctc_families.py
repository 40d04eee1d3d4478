"""Models for CTC of other families: the export proves each against PyTorch, and its bundle against transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

import triform
from tests.checkpoints.ctc import SMALL_CONVOLUTIONS, TOKENS, save_ctc_checkpoint, save_ctc_tokenizer
from tests.helpers.families import families
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.samples.vowels import synthetic_voice

RATE = 16000
_SMALL = {"hidden_size": 24, "num_attention_heads": 3, "num_hidden_layers": 2, "intermediate_size": 40}
_FEATURES: dict[str, tuple[Any, dict[str, Any]]] = {
    "wav2vec2-bert": (
        transformers.SeamlessM4TFeatureExtractor(feature_size=20, num_mel_bins=20),
        {**_SMALL, "feature_projection_input_dim": 40, "conv_depthwise_kernel_size": 5},
    ),
    "parakeet_ctc": (
        transformers.ParakeetFeatureExtractor(feature_size=20),
        {"encoder_config": {**_SMALL, "num_key_value_heads": 3, "num_mel_bins": 20, "conv_kernel_size": 5,
                            "subsampling_conv_channels": 8, "subsampling_factor": 4}},
    ),
    "omniasr_ctc": (
        transformers.OmniASRFeatureExtractor(),
        {"audio_config": {**_SMALL, **{name: value for name, value in SMALL_CONVOLUTIONS.items()
                                       if name != "num_feat_extract_layers"}}},
    ),
    "lasr_ctc": (
        transformers.LasrFeatureExtractor(feature_size=20),
        {"encoder_config": {**_SMALL, "num_attention_heads": 2, "num_key_value_heads": 2, "num_mel_bins": 20,
                            "conv_kernel_size": 4, "subsampling_conv_channels": 8}},
    ),
}  # fmt: skip


# Whose modules remember the rotary embedding of their last input.
_ROTARY = {"position_embeddings_type": "rotary", "conv_depthwise_kernel_size": 5, "num_hidden_layers": 1}


# With a table of sinusoids of more than 4 MB, which is computed in the graph; it must be no constant of the bundle.
_RELATIVE = {**_ROTARY, "position_embeddings_type": "relative", "max_source_positions": 22_000}
_CHANGES = {"wav2vec2-conformer": _ROTARY, "wav2vec2-conformer, relative": _RELATIVE}


def _save(folder, model_type):
    if model_type not in _FEATURES:
        changes = _CHANGES.get(model_type, {})
        return save_ctc_checkpoint(folder, model_type.split(",")[0], "layer", **changes)
    extractor, settings = _FEATURES[model_type]
    extractor.save_pretrained(folder)
    save_ctc_tokenizer(folder)
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, vocab_size=len(TOKENS), pad_token_id=0, **settings)
    model = transformers.AutoModelForCTC.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    return None


MORE_TYPES = {"lasr_ctc", "omniasr_ctc"}


# Of torch, about transformers' own code for WavLM.
@pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")
@pytest.mark.parametrize("model_type", families(["wavlm", "sew", *_CHANGES, *_FEATURES], MORE_TYPES))
def test_batches_of_different_lengths_are_transformers(model_type, tmp_path):
    folder, bundle = tmp_path / "model", tmp_path / "bundle"
    folder.mkdir()
    _save(folder, model_type)
    export(folder, bundle, ExportOptions(quantize="none"))
    assert sum(file.stat().st_size for file in bundle.iterdir()) < 2**21
    model = transformers.AutoModelForCTC.from_pretrained(folder, attn_implementation="eager").eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    sounds = [synthetic_voice(seconds, RATE, seed) for seed, seconds in enumerate((1.31, 2.02, 0.77))]
    found = triform.load_speech(bundle).log_probs(sounds)
    for sound, actual in zip(sounds, found, strict=True):
        inputs = extractor(sound, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True)
        with torch.no_grad():
            expected = model(**inputs).logits.log_softmax(-1)[0].numpy()
        # The frames of padding that some extractors add are not a row's own.
        assert 0 <= len(expected) - len(actual) <= 1
        np.testing.assert_allclose(actual, expected[: len(actual)], atol=2e-3)
