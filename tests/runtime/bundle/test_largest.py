"""The ends of ranges: the largest value of each kind that a manifest may have, and the next one, which it may not.

Written out by hand, so that an end that moves is noticed.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.limits.every import limits
from triform.runtime.bundle.limits.generation import generation_limits
from triform.runtime.bundle.manifest import Manifest
from triform.runtime.checked_json import build

MANIFESTS = Path(__file__).parent / "manifests"
INT32 = 2147483647


def after(value):
    return value + 1 if isinstance(value, int) else math.nextafter(value, math.inf)


def before(value):
    return value - 1 if isinstance(value, int) else math.nextafter(value, -math.inf)


@pytest.mark.parametrize(
    ("names", "least", "most"),
    [
        (("temperature", "diversity_penalty"), 0.0, 1e6),
        (("top_k", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "min_new_tokens", "min_length"), 0, INT32),
        (("top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"), 0.0, 1.0),
        (("repetition_penalty", "encoder_repetition_penalty"), 1e-6, 1e6),
        (("num_beams", "num_beam_groups"), 1, 1024),
        (("length_penalty",), -100.0, 100.0),
        (("max_new_tokens", "max_length"), 1, INT32),
    ],
)
def test_generation_defaults(names, least, most):
    for name in names:
        for value, fits in ((before(least), False), (least, True), (most, True), (after(most), False)):
            found = generation_limits(replace(GenerationDefaults(), **{name: value}), 40)
            assert [limit.key for limit in found if not limit.fits] == ([] if fits else [f"generation.{name}"])


def test_the_longest_of_the_other_defaults():
    def fits(**defaults):
        return all(limit.fits for limit in generation_limits(replace(GenerationDefaults(), **defaults), 40))

    assert fits(stop_strings=["a" * 10_000]) and not fits(stop_strings=["a" * 10_001])
    for decay, good in (((INT32, 1e6), True), ((INT32 + 1, 2.0), False), ((0, after(1e6)), False), ((0, 1e-9), True)):
        assert fits(exponential_decay_length_penalty=list(decay)) is good


CTC, AUDIO = "encoder.ctc", "encoder.audio"


@pytest.mark.parametrize(
    ("file", "path", "least", "most"),
    [
        ("decoder", "max_length", 2, INT32),
        ("vit", "max_length", 0, 0),
        ("decoder", "parameters", 0, 2**63 - 1),
        ("decoder", "files.decoder*onnx.size", 0, 2**63 - 1),
        ("decoder", "graphs.decoder.quantization.bits", 1, 32),
        ("decoder", "graphs.decoder.quantization.accuracy_level", 0, 4),
        ("decoder", "graphs.decoder.quantization.matrices", 0, INT32),
        ("decoder", "graphs.decoder.quantization.block_size", 1, INT32),
        ("decoder", "cache.layers.0.head_dim", 1, 2**20),
        ("decoder", "cache.layers.0.num_key_value_heads", 1, 2**20),
        ("states", "cache.states.0.shape.0", 1, 2**20),
        ("tag", "encoder.hidden_states", 0, 10_000),
        ("tag", "encoder.min_length", 1, None),
        ("embed", "encoder.embedding.dimension", 1, 2**20),
        ("pages", "encoder.boxes.scale", 1000, 2**16),
        ("clip", "encoder.contrast.bias", -1e6, 1e6),
        ("clip", "encoder.contrast.scale", math.nextafter(0.0, 1.0), 1e6),
        ("vit", "encoder.image.rescale", math.nextafter(0.0, 1.0), 1e6),
        ("vit", "encoder.image.mean.1", -1e6, 1e6),
        ("vit", "encoder.image.std.1", 1e-6, 1e6),
        # As many patches of 5 pixels as an image of 16,384 in each direction has.
        ("patches", "encoder.image.patches.count", 1, 2**28 // 25),
        ("mel-deltas", f"{AUDIO}.sampling_rate", 1000, 1_000_000),
        ("mel-deltas", f"{AUDIO}.padding_value", -1e6, 1e6),
        ("mel-deltas", f"{AUDIO}.chunk_length", 1, 3600),
        ("mel-deltas", f"{AUDIO}.longest", 0.2, 3600.0),
        ("mel-deltas", f"{AUDIO}.n_fft", 400, 2**16),
        ("mel-deltas", f"{AUDIO}.win_length", 160, 512),
        ("mel-deltas", f"{AUDIO}.hop_length", 1, 400),
        ("mel-deltas", f"{AUDIO}.feature_size", 1, 257),
        ("mel-deltas", f"{AUDIO}.length", 1, 360_000),
        ("mel-deltas", f"{AUDIO}.scale", 1e-6, 1e6),
        ("mel-deltas", f"{AUDIO}.mean", -1e6, 1e6),
        ("mel-deltas", f"{AUDIO}.deviation", 1e-6, 1e6),
        ("mel-deltas", f"{AUDIO}.stacked", 1, 64),
        ("mel-deltas", f"{AUDIO}.variance_floor", 0.0, 1e6),
        ("mel-deltas", f"{AUDIO}.deviation_floor", 0.0, 1e6),
        ("mel-deltas", f"{AUDIO}.deltas.reach", 1, 100),
        ("mel-deltas", f"{AUDIO}.deltas.range", 0.0, 1e6),
        # A row of four inputs has a frame of four.
        ("mel-deltas", f"{CTC}.stride", 1, 4),
        ("mel-deltas", f"{CTC}.offset", 0, 1_000_000),
        ("mel-deltas", "encoder.min_length", 4, 1_000_000),
        ("whisper", "encoder_decoder.audio.stacked", 1, 1),
        # Steps of 0.02 s in an hour.
        ("whisper", "encoder_decoder.speech.max_initial_timestamp_index", 0, 180_000),
        ("bart", "encoder_decoder.max_source_length", 1, INT32),
        ("m2m_100", "encoder_decoder.text.vocabulary", 1, INT32),
        ("embed", "export.encoder_parity.scale", 0.0, 1e15),
        ("embed", "export.encoder_parity.quantized.cosine_mean", -1.001, 1.001),
        ("embed", "export.encoder_parity.quantized.cosine_worst", -1.001, 1.001),
        ("decoder", "export.parity.quantized.top1_agreement", 0.0, 1.0),
    ],
)
def test_values_of_manifests(file, path, least, most):
    """`limits` alone is asked: other rules, of what belongs together, come after it."""
    content = json.loads((MANIFESTS / f"{file}.json").read_text(encoding="utf-8"))
    way = [part.replace("*", ".") for part in path.split(".")]
    place = content
    for key in way[:-1]:
        place = place[int(key) if isinstance(place, list) else key]
    last = int(way[-1]) if isinstance(place, list) else way[-1]

    def fits(value):
        place[last] = value
        return all(limit.fits for limit in limits(build(Manifest, content)))

    assert fits(least) and not fits(before(least))
    if most is not None:
        assert fits(most) and not fits(after(most))


def test_a_patch_is_no_larger_than_the_largest_image():
    content = json.loads((MANIFESTS / "patches.json").read_text(encoding="utf-8"))
    for size, good in ((2**14, True), (2**14 + 1, False)):
        content["encoder"]["image"]["patches"] = {"size": size, "count": 1}
        assert all(limit.fits for limit in limits(build(Manifest, content))) is good


def test_counts():
    content = json.loads((MANIFESTS / "states.json").read_text(encoding="utf-8"))
    cache, name = content["cache"], next(iter(content["files"]))

    def fits():
        return all(limit.fits for limit in limits(build(Manifest, content)))

    state, layer = cache["states"][0], cache["layers"][0]
    cache["states"], cache["layers"] = [state], [layer] * 9_999
    assert fits()
    cache["layers"] = [layer] * 10_000
    assert not fits()
    cache["states"], cache["layers"] = [], []
    assert not fits()
    cache["layers"] = [layer]
    assert fits()
    for shape, good in (([], False), ([7], True), ([1, 2, 3], True), ([1, 2, 3, 4], False)):
        cache["states"] = [{**state, "shape": shape}]
        assert fits() is good
    # 2 ** 28 numbers.
    for shape, good in (([2**14, 2**14], True), ([2**14, 2**14 + 1], False)):
        cache["states"] = [{**state, "shape": shape}]
        assert fits() is good
    cache["states"] = [state]
    for count, good in ((1000, True), (1001, False)):
        content["files"] = {f"{name}{number}": content["files"].get(name, {"size": 1, "sha256": "0" * 64})
                            for number in range(count)}  # fmt: skip
        assert fits() is good
