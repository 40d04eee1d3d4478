"""The ends of the ranges of an encoder's and an encoder-decoder's values."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.limits.encoder import encoder_limits
from triform.runtime.bundle.limits.encoder_decoder import encoder_decoder_limits, task_defaults
from triform.runtime.bundle.manifest import (
    CacheInfo,
    ContrastInfo,
    EmbeddingInfo,
    EncoderDecoderInfo,
    EncoderInfo,
    LayerCacheInfo,
    TaskPrefix,
)
from triform.runtime.bundle.media_info import AudioInfo, CtcInfo, ImageInfo, PatchesInfo, SpeechInfo
from triform.runtime.bundle.text_info import BoxesInfo, SourceTextInfo, SpecialBox
from triform.runtime.checked_json import Mismatch

VOCABULARY, LENGTH = 40, 512
WAVE = AudioInfo("waveform", 16000, 1, 0.0)


def refused(info, max_length=LENGTH):
    """The keys of values that are out of range, and what is allowed."""
    manifest = SimpleNamespace(max_length=max_length, vocab_size=VOCABULARY)
    return {
        limit.key.removeprefix("encoder."): limit.allowed for limit in encoder_limits(info, manifest) if not limit.fits
    }


def encoder(**values):
    return EncoderInfo(**({"hidden_states": 0} | values))


def embedding(dimension=48, **values):
    return encoder(embedding=EmbeddingInfo(dimension, "mean", True, **values))


def contrast(scale, bias, text_length):
    return encoder(contrast=ContrastInfo(scale, bias, "softmax", text_length))


def boxes(scale, token=0, box=(0, 0, 0, 0)):
    return encoder(boxes=BoxesInfo(scale, True, [SpecialBox(token, list(box))]))


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (encoder(hidden_states=-1), {"hidden_states": "at least 0"}), (encoder(), {}),
        (encoder(hidden_states=10_000), {}), (encoder(hidden_states=10_001), {"hidden_states": "at most 10000"}),
        (encoder(min_length=0), {"min_length": "at least 1"}), (encoder(min_length=LENGTH), {}),
        (encoder(min_length=LENGTH + 1), {"min_length": f"at most {LENGTH}"}),
        # Audio is counted in samples.
        (encoder(min_length=1_000_000, audio=WAVE), {}),
        (encoder(min_length=1_000_001, audio=WAVE), {"min_length": "at most 1000000"}),
        (embedding(0), {"embedding.dimension": "at least 1"}), (embedding(1), {}), (embedding(2**20), {}),
        (embedding(2**20 + 1), {"embedding.dimension": "at most 1048576"}),
        (embedding(prompts={"a": "b"}, default_prompt="a"), {}),
        (embedding(prompts={"a": "b"}, default_prompt="b"), {"embedding.default_prompt": "one of the prompts"}),
        (contrast(1e6, -1e6, LENGTH), {}), (contrast(1e-9, 1e6, 1), {}),
        (contrast(0.0, 0.0, 1), {"contrast.scale": "above 0 and at most 1e+06"}),
        (contrast(1e6 + 1, 0.0, 1), {"contrast.scale": "above 0 and at most 1e+06"}),
        (contrast(1.0, 1e6 + 1, 1), {"contrast.bias": "at most 1000000.0"}),
        (contrast(1.0, -1e6 - 1, 1), {"contrast.bias": "at least -1000000.0"}),
        (contrast(1.0, 0.0, 0), {"contrast.text_length": "at least 1"}),
        (contrast(1.0, 0.0, LENGTH + 1), {"contrast.text_length": f"at most {LENGTH}"}),
        (boxes(1, VOCABULARY - 1, (0, 1, 0, 1)), {}), (boxes(2**16, 0, (0, 2**16, 2**16, 0)), {}),
        (boxes(2**16 + 1), {"boxes.scale": "at most 65536"}), (boxes(0), {"boxes.scale": "at least 1"}),
        (boxes(9, VOCABULARY), {"boxes.special[0].token": f"a token id from 0 to {VOCABULARY - 1}"}),
        (boxes(9, 0, (0, 0, 0)), {"boxes.special[0].box": "four numbers from 0 to 9"}),
        (boxes(9, 0, (0, 0, 0, 10)), {"boxes.special[0].box": "four numbers from 0 to 9"}),
        (boxes(9, 0, (-1, 0, 0, 0)), {"boxes.special[0].box": "four numbers from 0 to 9"}),
        (boxes(9, 0, (0, 0, 0, 9, 9)), {"boxes.special[0].box": "four numbers from 0 to 9"}),
        (encoder(ctc=CtcInfo(VOCABULARY, 1, 0)), {"ctc.blank": f"a token id from 0 to {VOCABULARY - 1}"}),
        (encoder(ctc=CtcInfo(0, 2, 0)), {"ctc.offset": "such that a row of 1 has a frame"}),
    ],
)  # fmt: skip
def test_an_encoder(info, expected):
    assert refused(info) == expected


def test_a_model_without_texts_may_have_a_length_of_none():
    assert refused(encoder(), max_length=0) == {}
    assert refused(encoder(min_length=2), max_length=0) == {"min_length": "at most 1"}


IMAGE = ImageInfo(3, 8, 8, [8, 8], "bicubic", None, None, None, None)
SPEECH = SpeechInfo(10, 11, alignment_heads=[[2, 0]])


def refused_pair(layers=3, cached=True, **values):
    """The same of an encoder-decoder, whose decoder has three layers."""
    info = EncoderDecoderInfo("text", **({"decoder_start": 0} | values))
    cache = CacheInfo("float32", [LayerCacheInfo(1, 1)] * layers) if cached else None
    manifest = SimpleNamespace(
        vocab_size=VOCABULARY, cache=cache, generation=GenerationDefaults(), encoder_decoder=info
    )
    limits = encoder_decoder_limits(info, manifest)
    return {limit.key.removeprefix("encoder_decoder."): limit.allowed for limit in limits if not limit.fits}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, {}), ({"decoder_start": VOCABULARY - 1}, {}), ({"max_source_length": 1}, {}),
        ({"decoder_start": VOCABULARY}, {"decoder_start": f"a token id from 0 to {VOCABULARY - 1}"}),
        ({"max_source_length": 0}, {"max_source_length": "at least 1"}),
        ({"text": SourceTextInfo(vocabulary=0)}, {"text.vocabulary": "at least 1"}),
        ({"audio": replace(WAVE, sampling_rate=999)}, {"audio.sampling_rate": "at least 1000"}),
        ({"image": IMAGE}, {}), ({"image": replace(IMAGE, channels=1)}, {"image.channels": "3"}),
        (
            {"image": replace(IMAGE, resize=[], height=0, width=0, patches=PatchesInfo(2, 4))},
            {"image.patches": "null for an encoder-decoder"},
        ),
        # The decoder's last layer, and the one behind it.
        ({"speech": SPEECH}, {}), ({"speech": SPEECH, "layers": 2}, {"speech.alignment_heads[0][0]": "at most 1"}),
        ({"speech": replace(SPEECH, alignment_heads=[]), "cached": False}, {}),
        (
            {"speech": replace(SPEECH, alignment_heads=[[0, 0]]), "cached": False},
            {"speech.alignment_heads[0][0]": "at most -1"},
        ),
        ({"tasks": {"a": TaskPrefix("a: ", {"num_beams": 1024})}}, {}),
        ({"tasks": {"a": TaskPrefix("a: ", {"num_beams": 1025})}}, {"tasks.a.generation.num_beams": "at most 1024"}),
    ],
)  # fmt: skip
def test_an_encoder_decoder(values, expected):
    assert refused_pair(**values) == expected


def test_settings_of_a_task_stand_before_the_models():
    own, tasks = GenerationDefaults(num_beams=4, top_k=7), {"a": TaskPrefix("a: ", {"num_beams": 2, "unknown": 1})}
    manifest = SimpleNamespace(generation=own, encoder_decoder=EncoderDecoderInfo("text", 0, tasks=tasks))
    assert task_defaults(manifest, "a") == GenerationDefaults(num_beams=2, top_k=7)
    assert task_defaults(SimpleNamespace(generation=own, encoder_decoder=None), "a") == own
    tasks["a"] = TaskPrefix("a: ", {"num_beams": "two"})
    with pytest.raises(Mismatch, match=r"encoder_decoder\.tasks\.a\.generation\.num_beams"):
        task_defaults(manifest, "a")
