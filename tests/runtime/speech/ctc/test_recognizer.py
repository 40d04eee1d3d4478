"""What a model for CTC hears of rows of samples, on a stand-in for its graph: frames, short rows, refusals."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.bundle.media_info import AudioInfo, CtcInfo
from triform.runtime.errors import BundleError
from triform.runtime.speech.ctc.recognizer import CtcRecognizer

VOCABULARY = 3
WAVE = AudioInfo("waveform", 16000, 1, 0.0)


class Step:
    """Gives a frame for each two samples, padded to the longest row: the first logit is the place of the frame."""

    def __init__(self):
        self.rows = []

    def logits(self, rows):
        self.rows.append([len(row) for row in rows])
        longest = max(map(len, rows))
        frames = np.arange(longest, dtype=np.float32)
        return [np.stack([frames, 0 * frames, 0 * frames], -1) for _ in rows]


def make(ctc, min_length=1, audio=WAVE):
    model = object.__new__(CtcRecognizer)
    model._bundle = SimpleNamespace(manifest=SimpleNamespace(vocab_size=VOCABULARY))
    model.info, model.audio, model.ctc = SimpleNamespace(min_length=min_length), audio, ctc
    model._step = Step()
    return model


def sounds(*lengths):
    return [np.ones(length, np.float32) for length in lengths]


@pytest.mark.parametrize(
    ("offset", "lengths", "frames"),
    [
        # Whole strides only.
        (0, (9, 10, 11, 20), (0, 1, 1, 2)),
        (-4, (13, 14, 23, 24), (0, 1, 1, 2)),
        (3, (6, 7, 17), (0, 1, 2)),
        # Less than no frame is none.
        (-30, (9,), (0,)),
    ],
)
def test_each_row_has_its_own_frames_of_a_batch(offset, lengths, frames):
    model = make(CtcInfo(0, 10, offset))
    found = model.log_probs(sounds(*lengths))
    assert tuple(map(len, found)) == frames
    assert model._step.rows == [list(lengths)]
    for row in found:
        assert row.dtype == np.float32 and row.shape[1] == VOCABULARY
        np.testing.assert_allclose(np.exp(row).sum(-1), 1, rtol=1e-6)
        # The first logit of frame n is n more than the others.
        np.testing.assert_allclose(row[:, 0] - row[:, 1], np.arange(len(row)), atol=1e-6)


def test_rows_that_are_too_short_are_not_run():
    model = make(CtcInfo(0, 2, 0), min_length=5)
    found = model.log_probs(sounds(0, 5, 4, 6))
    assert model._step.rows == [[5, 6]]
    assert [row.shape for row in found] == [(0, 3), (2, 3), (0, 3), (3, 3)]
    assert [row.shape for row in model.log_probs(sounds(4, 0))] == [(0, 3)] * 2
    assert model._step.rows == [[5, 6]] and model.log_probs([]) == []


def test_samples_from_one_frame_to_the_next():
    """A waveform's inputs are samples; a spectrogram's have as many samples as a hop, and frames may be stacked."""
    assert make(CtcInfo(0, 320, 0)).frame_step == 320
    fbank = AudioInfo("fbank", 16000, 80, 0.0, win_length=400, n_fft=512, hop_length=160, stacked=2)
    assert make(CtcInfo(0, 4, 0), audio=fbank).frame_step == 4 * 160 * 2


@pytest.mark.parametrize("missing", ["encoder", "audio", "ctc"])
def test_a_bundle_that_does_not_say_how_logits_become_text(missing):
    parts = {"audio": WAVE, "ctc": CtcInfo(0, 1, 0)} | {missing: None}
    info = None if missing == "encoder" else SimpleNamespace(**parts)
    bundle = SimpleNamespace(manifest=SimpleNamespace(encoder=info), folder="some/bundle")
    with pytest.raises(
        BundleError, match=r"^some/bundle does not say how its logits become text; export the model again$"
    ):
        CtcRecognizer(bundle)
