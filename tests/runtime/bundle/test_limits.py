"""The ends of ranges: the last value that a graph, a spectrogram or a vocabulary can have, and the first it cannot."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.bundles import sealed
from triform.runtime.bundle.export_record import QuantizedEncoderParity, QuantizedParity
from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.limits.contract import token_id, token_ids, within
from triform.runtime.bundle.limits.generation import generation_limits
from triform.runtime.bundle.limits.graphs import parity_limits
from triform.runtime.bundle.limits.media import audio_limits, ctc_limits, image_limits, speech_limits
from triform.runtime.bundle.limits.text import source_text_limits, token_limits, tokenizer_limits
from triform.runtime.bundle.manifest import Tokens
from triform.runtime.bundle.media_info import AudioInfo, CtcInfo, ImageInfo, MelInfo, SpeechInfo
from triform.runtime.bundle.reading import read_manifest
from triform.runtime.bundle.text_info import (
    CodePointsInfo,
    LanguagesInfo,
    SourceLanguage,
    SourceTextInfo,
    TargetLanguage,
    TokenizerInfo,
)
from triform.runtime.errors import BundleError

MANIFESTS = Path(__file__).parent / "manifests"
VOCAB = 40


def refused(limits):
    """The keys of values that are out of range, without the name of their record."""
    return {limit.key.partition(".")[2] for limit in limits if not limit.fits}


def test_a_range_has_both_its_ends():
    assert [within("x", value, 2, 5).fits for value in (1, 2, 5, 6, None, math.nan)] == [
        False, True, True, False, True, False,
    ]  # fmt: skip
    assert [token_id("x", token, VOCAB).fits for token in (-1, 0, 39, 40, None)] == [False, True, True, False, True]
    assert [limit.fits for limit in token_ids("x", [39, 40], VOCAB)] == [True, False]
    assert (within("x", 1, 2, 5).allowed, within("x", 6, 2, 5).allowed) == ("at least 2", "at most 5")


FBANK = AudioInfo("fbank", 16000, 80, 0.0, win_length=400, n_fft=512, hop_length=160)
LOG_MEL = AudioInfo("log_mel", 16000, 80, 0.0, chunk_length=30, win_length=400, n_fft=400, hop_length=160)
WAVE = AudioInfo("waveform", 16000, 1, 0.0)
BANDS = MelInfo("htk", 0.0, 8000.0, 0.97, True, 1e-10, False)
MEL = replace(FBANK, kind="mel", mel=BANDS)
IMAGE = ImageInfo(3, 20, 24, [22, 28], "bicubic", [20, 24], 1 / 255, [0.5] * 3, [0.5] * 3)


@pytest.mark.parametrize(
    ("info", "keys"),
    [
        (FBANK, set()),
        (LOG_MEL, set()),
        (WAVE, set()),
        (MEL, set()),
        # A transform of 512 points has 257 frequencies.
        (replace(FBANK, feature_size=257), set()),
        (replace(FBANK, feature_size=258), {"feature_size"}),
        # Frames that touch, and frames that skip a sample.
        (replace(FBANK, hop_length=400), set()),
        (replace(FBANK, hop_length=401), {"hop_length"}),
        (replace(FBANK, win_length=512), set()),
        (replace(FBANK, win_length=513), {"win_length"}),
        (replace(FBANK, variance_floor=0.0, deviation_floor=-1e-9), {"deviation_floor"}),
        (replace(FBANK, deviation=0.0), {"deviation"}),
        (replace(FBANK, stacked=0), {"stacked"}),
        (replace(FBANK, multiple=2), {"multiple"}),
        (replace(FBANK, mel=BANDS), {"mel"}),
        (replace(FBANK, longest=0.0), {"longest"}),
        (replace(LOG_MEL, chunk_length=None), {"chunk_length"}),
        (replace(LOG_MEL, win_length=399), {"win_length"}),
        (replace(LOG_MEL, stacked=2), {"stacked"}),
        (replace(WAVE, normalize_means=True), {"normalize_vars"}),
        (replace(WAVE, normalize_means=True, normalize_vars=True), set()),
        (replace(WAVE, feature_size=2), {"feature_size"}),
        (replace(WAVE, hop_length=1), {"hop_length"}),
        (replace(MEL, mel=None), {"mel"}),
        # Half of the sampling rate is the highest frequency there is.
        (replace(MEL, mel=replace(BANDS, highest=8001.0)), {"mel.highest"}),
        (replace(MEL, mel=replace(BANDS, lowest=7999.0)), set()),
        (replace(MEL, mel=replace(BANDS, lowest=8000.0)), {"mel.highest"}),
        (replace(MEL, mel=replace(BANDS, lowest=1.0, filters="slaney")), {"mel.lowest"}),
        (replace(MEL, mel=replace(BANDS, floor=0.0)), {"mel.floor"}),
        (replace(MEL, mel=replace(BANDS, preemphasis=1.0)), set()),
        (replace(MEL, mel=replace(BANDS, preemphasis=1.1)), {"mel.preemphasis"}),
    ],
)
def test_audio(info, keys):
    assert refused(audio_limits(info, "audio")) == keys


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, set()),
        # What is cut from the middle is the image, and no larger than what it is cut from.
        ({"resize": [20, 24]}, set()),
        ({"resize": [19, 24]}, {"crop"}),
        ({"resize": [20, 23]}, {"crop"}),
        ({"resize": [24]}, set()),
        ({"resize": [23]}, {"crop"}),
        ({"resize": [22, 28, 3]}, {"resize"}),
        ({"crop": [24, 20]}, {"crop"}),
        ({"crop": None}, {"resize"}),
        ({"crop": None, "resize": [20, 24]}, set()),
        ({"channels": 4, "mean": [0.5] * 4, "std": [0.5] * 4}, {"channels"}),
        ({"std": None}, {"std"}),
        ({"mean": None}, {"std"}),
        ({"mean": None, "std": None}, set()),
        ({"mean": [0.5] * 2}, {"mean"}),
        ({"std": [0.5, 0.0, 0.5]}, {"std[1]"}),
        ({"rescale": 0.0}, {"rescale"}),
        ({"rescale": None}, set()),
        ({"rescale": None, "resize_after_rescale": True}, {"resize_after_rescale"}),
    ],
)
def test_images(changes, keys):
    assert refused(image_limits(replace(IMAGE, **changes), "image")) == keys


@pytest.mark.parametrize(
    ("info", "keys"),
    [
        # The shortest row, of 164 samples, has (164 + offset) // 160 frames: one, until the offset is less than -4.
        (CtcInfo(0, 160, -4), set()),
        (CtcInfo(0, 160, -5), {"offset"}),
        (CtcInfo(VOCAB - 1, 160, 0), set()),
        (CtcInfo(VOCAB, 160, 0), {"blank"}),
        (CtcInfo(0, 0, 0), {"stride"}),
    ],
)
def test_frames_of_logits(info, keys):
    assert refused(ctc_limits(info, 164, VOCAB, "ctc")) == keys


SPEECH = SpeechInfo(30, 29, {"de": 20}, 21, 22, 23, 24, 0, [[0, 5], [2, 0]], "de", "translate")


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        ({}, set()),
        *(({name: VOCAB}, {name}) for name in ("timestamp_begin", "no_timestamps", "transcribe", "translate")),
        *(({name: VOCAB}, {name}) for name in ("no_speech", "previous")),
        ({"languages": {"de": VOCAB}}, {"languages.de"}),
        ({"default_language": None, "default_task": None}, set()),
        ({"default_language": "fr"}, {"default_language"}),
        ({"default_task": "sing"}, {"default_task"}),
        ({"max_initial_timestamp_index": -1}, {"max_initial_timestamp_index"}),
        # Of three layers.
        ({"alignment_heads": [[3, 0]]}, {"alignment_heads[0][0]"}),
        ({"alignment_heads": [[0, 0], [0, -1]]}, {"alignment_heads[1][1]"}),
        ({"alignment_heads": [[1]]}, {"alignment_heads[0]"}),
    ],
)
def test_tokens_of_speech(changes, keys):
    assert refused(speech_limits(replace(SPEECH, **changes), VOCAB, 3, "speech")) == keys


def test_tokens_are_of_the_vocabulary_that_they_are_read_or_written_in():
    """An encoder-decoder may read 50 tokens and write 40."""
    languages = LanguagesInfo(
        sources={"en": SourceLanguage([49], [50])},
        targets={"de": TargetLanguage(asked=[49, 50], forced=[39, 40])},
        default_source="de",
        default_target="de",
        plain=SourceLanguage([50], [49]),
    )
    info = SourceTextInfo(languages=languages, unknown=50, vocabulary=50)
    assert refused(source_text_limits(info, VOCAB, "text")) == {
        "unknown",
        "languages.plain.prefix[0]",
        "languages.sources.en.suffix[0]",
        "languages.targets.de.asked[1]",
        "languages.targets.de.forced[1]",
        "languages.default_source",
    }
    assert refused(token_limits(Tokens(bos=40, eos=[39, 40], pad=39, mask=40), VOCAB)) == {"bos", "mask", "eos[1]"}


def test_a_tokenizer_is_a_file_or_code_points():
    points = CodePointsInfo(first=1, separator=0x10FFFF, special=[0], strip_before=[0], second_type=1)
    known = TokenizerInfo(file="tokenizer.json", special={}, chat_template=None)
    assert refused(tokenizer_limits(known)) == set()
    assert refused(tokenizer_limits(replace(known, file=None))) == {"file"}
    assert refused(tokenizer_limits(replace(known, code_points=points))) == {"file"}
    alone = replace(known, file=None, code_points=points)
    assert refused(tokenizer_limits(alone)) == set()
    wrong = replace(points, first=-1, separator=0x110000, special=[0x110000], second_type=2)
    assert refused(tokenizer_limits(replace(alone, code_points=wrong))) == {
        "code_points.first", "code_points.separator", "code_points.special[0]", "code_points.second_type",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("temperature", [0.0], [-0.1]),
        ("top_p", [0.0, 1.0], [1.01]),
        ("min_p", [0.0, 1.0], [1.01]),
        ("typical_p", [0.0, 1.0], [1.01]),
        ("epsilon_cutoff", [0.0, 1.0], [1.01]),
        ("eta_cutoff", [0.0, 1.0], [1.01]),
        ("repetition_penalty", [0.5, 2.0], [0.0]),
        ("encoder_repetition_penalty", [0.5, 2.0], [0.0]),
        ("num_beams", [1], [0]),
        ("num_beam_groups", [1], [0]),
        ("diversity_penalty", [0.0], [-0.1]),
        ("length_penalty", [-2.0, 0.0, 2.0], []),
        ("min_new_tokens", [0], [-1]),
        ("max_new_tokens", [1], [0]),
        ("max_length", [1], [0]),
        ("early_stopping", [True, False, "never", None], ["always"]),
        ("exponential_decay_length_penalty", [[0, 0.5], None], [[0, 0], [-1, 2], [3], [3, 2, 1]]),
        ("forced_eos_token_id", [[39]], [[40]]),
        ("suppress_tokens", [[0, 39], []], [[40]]),
        ("begin_suppress_tokens", [[39], []], [[3, -1]]),
        ("forced_bos_token_id", [39, None], [40]),
        ("bad_words_ids", [[[39]], []], [[[]], [[3, 40]]]),
        ("stop_strings", [["a"], []], [[""]]),
    ],
)
def test_generation_defaults(name, good, bad):
    for values, fits in ((good, True), (bad, False)):
        for value in values:
            limits = generation_limits(replace(GenerationDefaults(), **{name: value}), VOCAB)
            assert (refused(limits) == set()) == fits, value


def test_measured_shares():
    """A cosine may be above 1 by its rounding."""
    assert refused(parity_limits(QuantizedParity(1.0, 0.0, 1.0, 1.0, 1), "parity")) == set()
    assert refused(parity_limits(QuantizedParity(1.01, -0.1, math.nan, 1.0, 1), "parity")) == {
        "top1_agreement", "mean_kl", "perplexity_original",
    }  # fmt: skip
    assert refused(parity_limits(QuantizedEncoderParity(3, 1.0000001, -1.0), "parity")) == set()
    assert refused(parity_limits(QuantizedEncoderParity(3, 1.1, -1.1), "parity")) == {"cosine_mean", "cosine_worst"}


@pytest.mark.parametrize(
    ("file", "path", "good", "bad"),
    [
        # A token of a prompt and one of an answer.
        ("decoder", ("max_length",), [2], [1]),
        ("decoder", ("tokens", "bos"), [399], [400]),
        ("t5", ("encoder_decoder", "decoder_start"), [412], [413]),
        ("decoder", ("graphs", "decoder", "quantization", "accuracy_level"), [0, 4], [5]),
        ("decoder", ("files", "decoder.onnx", "size"), [0], [-1]),
        ("decoder", ("files", "decoder.onnx", "sha256"), ["0f" * 32], ["0f" * 31, "0F" * 32, "0f" * 33, "0g" * 32]),
        # A model of images without a vocabulary has no token, not even the first.
        ("vit", ("tokens", "pad"), [None], [0]),
        ("pages", ("encoder", "boxes", "special", 0, "box"), [[0, 0, 1000, 1000]], [[0, 0, 1000, 1001], [0, 0, 9]]),
        ("clip", ("encoder", "contrast", "scale"), [0.01], [0.0]),
        ("siglip", ("encoder", "contrast", "text_length"), [1], [0]),
    ],
)
def test_ends_of_a_manifests_own_ranges(tmp_path, file, path, good, bad):
    content = json.loads((MANIFESTS / f"{file}.json").read_text(encoding="utf-8"))
    *way, last = path
    place = content
    for key in way:
        place = place[key]
    for value in good:
        place[last] = value
        (tmp_path / "manifest.json").write_text(sealed(content), encoding="utf-8")
        read_manifest(tmp_path)
    for value in bad:
        place[last] = value
        (tmp_path / "manifest.json").write_text(sealed(content), encoding="utf-8")
        with pytest.raises(BundleError, match=str(path[-1])):
            read_manifest(tmp_path)
