"""Both ends of every range of what describes images and audio: the last value that fits, and the first beyond."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.runtime.bundle.test_limits import BANDS, FBANK, IMAGE, MEL, SPEECH, VOCAB, WAVE, refused
from triform.runtime.bundle.limits.media import audio_limits, ctc_limits, image_limits, speech_limits
from triform.runtime.bundle.media_info import CtcInfo, DeltasInfo, PatchesInfo

# A transform of the most points, for its own ends.
LARGE = replace(FBANK, n_fft=2**16)
DELTAS = replace(FBANK, kind="mel_deltas", deltas=DeltasInfo(2, 8.0))
NUMBERS = (-1e6, 1e6, -1.1e6, 1.1e6)
POSITIVE = (1e-6, 1e6, 0.9e-6, 1.1e6)
FROM_NOTHING = (0, 1e6, -1e-9, 1.1e6)


def check(limits_of, name, ends):
    """The least and the most that fit, and what is below and above these; None where there is no such end."""
    *good, below, above = ends
    for value, fits in ((good[0], True), (good[1], True), (below, False), (above, False)):
        if value is not None:
            assert (name in refused(limits_of(value))) is not fits, value


@pytest.mark.parametrize(
    ("info", "name", "ends"),
    [
        (FBANK, "sampling_rate", (1000, 1_000_000, 999, 1_000_001)),
        (FBANK, "padding_value", NUMBERS),
        (FBANK, "chunk_length", (1, 3600, 0, 3601)),
        (FBANK, "longest", (0.2, 3600, 0.19, 3600.1)),
        (WAVE, "multiple", (1, 2**16, 0, 2**16 + 1)),
        (WAVE, "variance_floor", FROM_NOTHING),
        (LARGE, "n_fft", (400, 2**16, 1, 2**16 + 1)),
        (LARGE, "win_length", (2, 2**16, 1, 2**16 + 1)),
        (FBANK, "hop_length", (1, 400, 0, 401)),
        (FBANK, "feature_size", (1, 257, 0, 258)),
        (FBANK, "length", (1, 360_000, 0, 360_001)),
        (FBANK, "scale", POSITIVE),
        (FBANK, "mean", NUMBERS),
        (FBANK, "deviation", POSITIVE),
        (FBANK, "stacked", (1, 64, 0, 65)),
        (FBANK, "variance_floor", FROM_NOTHING),
        (FBANK, "deviation_floor", FROM_NOTHING),
    ],
)
def test_audio(info, name, ends):
    check(lambda value: audio_limits(replace(info, **{name: value}), "audio"), name, ends)


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("lowest", (0.0, 4000.0, -1.0, 8001.0)),
        ("highest", (1.0, 8000.0, 0.0, 8001.0)),
        ("preemphasis", (0, 1, -0.01, 1.01)),
        ("floor", (1e-30, 1e6, 0.9e-30, 1.1e6)),
    ],
)
def test_bands(name, ends):
    check(lambda value: audio_limits(replace(MEL, mel=replace(BANDS, **{name: value})), "audio"), f"mel.{name}", ends)


@pytest.mark.parametrize(("name", "ends"), [("reach", (1, 100, 0, 101)), ("range", FROM_NOTHING)])
def test_changes(name, ends):
    assert not refused(audio_limits(DELTAS, "audio"))
    changed = lambda value: replace(DELTAS, deltas=replace(DELTAS.deltas, **{name: value}))  # noqa: E731
    check(lambda value: audio_limits(changed(value), "audio"), f"deltas.{name}", ends)
    for wrong in (replace(DELTAS, deltas=None), replace(FBANK, deltas=DELTAS.deltas)):
        assert refused(audio_limits(wrong, "audio")) == {"deltas"}


@pytest.mark.parametrize("name", ["win_length", "n_fft", "hop_length"])
def test_a_waveform_has_no_frames(name):
    assert refused(audio_limits(replace(WAVE, **{name: 0}), "audio")) == set()
    assert refused(audio_limits(replace(WAVE, **{name: 1}), "audio")) == {name}
    assert refused(audio_limits(replace(WAVE, stacked=2), "audio")) == {"stacked"}


@pytest.mark.parametrize("name", ["height", "width"])
def test_the_edges_of_an_image(name):
    def limits(value):
        size = {"height": 20, "width": 24} | {name: value}
        return image_limits(replace(IMAGE, **size, crop=None, resize=list(size.values())), "image")

    check(limits, name, (1, 2**14, 0, 2**14 + 1))
    place = f"resize[{('height', 'width').index(name)}]"
    check(limits, place, (1, 2**14, 0, 2**14 + 1))


@pytest.mark.parametrize(
    ("name", "values", "ends"),
    [
        ("rescale", lambda value: {"rescale": value}, (1e-9, 1e6, 0, 1.1e6)),
        ("mean[2]", lambda value: {"mean": [0.5, 0.5, value]}, NUMBERS),
        ("std[0]", lambda value: {"std": [value, 0.5, 0.5]}, POSITIVE),
    ],
)
def test_the_numbers_of_an_image(name, values, ends):
    check(lambda value: image_limits(replace(IMAGE, **values(value)), "image"), name, ends)


PATCHED = replace(IMAGE, height=0, width=0, resize=[], crop=None, patches=PatchesInfo(16, 256))


@pytest.mark.parametrize(
    ("name", "size", "ends"),
    [
        ("size", None, (1, 2**14, 0, 2**14 + 1)),
        # As many as an image of the longest edges has.
        ("count", 16, (1, 2**20, 0, 2**20 + 1)),
        ("count", 1, (1, 2**28, 0, 2**28 + 1)),
        ("count", 2**14, (1, 1, 0, 2)),
    ],
)
def test_patches(name, size, ends):
    assert not refused(image_limits(PATCHED, "image"))

    def limits(value):
        patches = PatchesInfo(value, 1) if name == "size" else PatchesInfo(size, value)
        return image_limits(replace(PATCHED, patches=patches), "image")

    check(limits, f"patches.{name}", ends)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"height": 20}, "height"),
        ({"width": 20}, "width"),
        ({"resize": [20]}, "resize"),
        ({"crop": [20, 20]}, "crop"),
        ({"resize_after_rescale": True}, "resize_after_rescale"),
    ],
)
def test_patches_have_no_size_of_their_own(changes, key):
    assert refused(image_limits(replace(PATCHED, **changes), "image")) == {key}


def test_frames_and_times():
    check(lambda value: ctc_limits(CtcInfo(0, value, value), 10**7, VOCAB, "ctc"), "stride", (1, 10**6, 0, 10**6 + 1))
    check(lambda value: ctc_limits(CtcInfo(0, 1, value), 10**7, VOCAB, "ctc"), "offset",
          (-(10**6), 10**6, -(10**6) - 1, 10**6 + 1))  # fmt: skip
    # The steps of 0.02 s in an hour.
    latest = "max_initial_timestamp_index"
    check(lambda value: speech_limits(replace(SPEECH, **{latest: value}), VOCAB, 3, "speech"), latest,
          (0, 180_000, -1, 180_001))  # fmt: skip
    for head, fits in ([2, 0], True), ([2, 10**6], True), ([-1, 0], False), ([3, 0], False), ([0, -1], False):
        found = refused(speech_limits(replace(SPEECH, alignment_heads=[head]), VOCAB, 3, "speech"))
        assert bool(found) is not fits
    assert refused(speech_limits(replace(SPEECH, alignment_heads=[[1, 2, 3]]), VOCAB, 3, "speech")) == {
        "alignment_heads[0]"
    }
