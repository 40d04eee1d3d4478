"""Speech-to-text models of other families write what transformers writes, from its own feature extractor's arrays."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

from tests.coverage.forms import FORMS
from tests.helpers.families import families
from tests.helpers.signals import noise, tone, voice
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.models.encoder_decoder.kinds import encoder_decoder_kind
from triform.models.errors import UnsupportedModelError
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.search.choice import run_search
from triform.runtime.generation.setup import settle
from triform.runtime.media.audio_features import audio_features, pad_features
from triform.runtime.opening import load_encoder_decoder

RATE, LIMIT = 16000, 12
# What the processor of a type asks of its feature extractor.
_ASKED = {"moonshine_streaming": {"padding": True, "pad_to_multiple_of": 80}}


NAMES = ("canary", "cohere_asr", "moonshine_streaming", "seamless_m4t_v2", "speecht5", "speech-encoder-decoder")
MORE_NAMES = {"cohere_asr", "seamless_m4t_v2", "speech-encoder-decoder"}


@pytest.mark.parametrize("name", families(NAMES, MORE_NAMES))
def test_what_is_written_is_transformers(name, tmp_path):
    folder, bundle = tmp_path / "model", tmp_path / "bundle"
    FORMS["speech"].save(name, folder)
    export(folder, bundle, ExportOptions(quantize="none"))
    architecture = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, architecture).from_pretrained(folder, attn_implementation="eager").eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    ours = load_encoder_decoder(bundle)
    # No whole number of frames, however long those are.
    for sound in (voice(1.9)[:-7], noise(0.8)[:-41], (tone(2.6, 300) + voice(2.6, 90))[:-79]):
        inputs = extractor(
            sound, sampling_rate=RATE, return_tensors="pt", return_attention_mask=True, **_ASKED.get(name, {})
        )
        inputs = {key: value for key, value in inputs.items() if torch.is_tensor(value)}
        assert _written(ours, sound) == _expected(model, inputs, ours.info.decoder_start)


def _written(bundle, sound):
    info = bundle.info.audio
    features, mask = pad_features([audio_features(sound, info)], info.padding_value, info.multiple)
    (name,) = [node.name for node in bundle.manifest.graphs["encoder"].inputs if node.name != "attention_mask"]
    settled = settle(GenerationOptions(max_new_tokens=LIMIT), bundle.manifest, bundle.text.target, beams=Beams(1))
    row = settled.row([bundle.info.decoder_start])
    step = bundle.reader.batch_step(bundle.reader.read({name: features, "attention_mask": mask}))
    ((best,),) = run_search(step, [row], settled.search)
    return list(best.token_ids)


def _expected(model, inputs, start):
    """The likeliest tokens, each after all before it, without a cache."""
    row, end = torch.tensor([[start]]), model.generation_config.eos_token_id
    with torch.no_grad():
        for _ in range(LIMIT):
            best = model(**inputs, decoder_input_ids=row, use_cache=False).logits[0, -1].argmax()
            if int(best) == end:
                break
            row = torch.cat([row, best[None, None]], 1)
    return row[0, 1:].tolist()


def test_the_rest_of_a_frame_is_padding_that_the_mask_hides():
    features, mask = pad_features([np.ones(5, np.float32), np.ones(3, np.float32)], 0.5, multiple=4)
    assert features.shape == (2, 8)
    assert features[:, 5:].tolist() == [[0.5] * 3] * 2
    assert mask.sum(1).tolist() == [5, 3]


def test_what_reads_texts_and_writes_sounds_is_refused():
    with pytest.raises(UnsupportedModelError, match="dia models read texts and write sounds"):
        encoder_decoder_kind(transformers.DiaConfig())
