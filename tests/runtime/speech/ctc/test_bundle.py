"""What the manifest says of a model for CTC, int8 weights, and damaged manifests, which are refused in one line."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import triform
from tests.helpers.bundles import change, read_manifest_json
from triform.export.options import ExportOptions
from triform.export.recheck.against import verify_against
from triform.export.samples.vowels import synthetic_voice
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.errors import BundleError

RATE = 16000


def test_frames_and_input(ctc_folder, ctc_bundle):
    encoder = read_manifest_json(ctc_bundle)["encoder"]
    # Kernels of 20 and 10 samples of stride 16 and 10: 160 from frame to frame, and (10 - 1) * 16 + 20 under one.
    assert encoder["ctc"] == {"blank": 0, "stride": 160, "offset": 160 - (9 * 16 + 20)}
    assert encoder["min_length"] == 9 * 16 + 20
    assert encoder["equal_lengths"] == ("group" in ctc_folder.name)
    assert (encoder["audio"]["kind"], encoder["audio"]["normalize_means"]) == ("waveform", True)


def test_int8(ctc_folder, ctc_model, export_once):
    bundle = export_once(f"{ctc_folder.name}-int8", ctc_folder, ExportOptions())
    manifest = read_manifest_json(bundle)
    assert manifest["graphs"]["encoder"]["quantization"]["scheme"] == "int8"
    assert manifest["graphs"]["encoder"]["quantization"]["matrices"] > 10
    quantized, sounds = triform.load_speech(bundle), [synthetic_voice(seconds, RATE, 4) for seconds in (1.1, 1.7)]
    together = quantized.log_probs(sounds)
    for sound, row, exact in zip(sounds, together, ctc_model.log_probs(sounds), strict=True):
        np.testing.assert_allclose(row, quantized.log_probs([sound])[0], atol=1e-5)
        assert np.abs(np.exp(row) - np.exp(exact)).mean() < 0.01


def test_a_bundle_is_compared_again(ctc_folder, ctc_bundle):
    parity = verify_against(open_bundle(ctc_bundle), str(ctc_folder))
    assert 0 < parity.batch <= parity.tolerance


def test_what_a_quantized_bundle_writes_is_compared_again(ctc_folder, export_once):
    bundle = open_bundle(export_once(f"{ctc_folder.name}-int8", ctc_folder, ExportOptions()))
    recorded = bundle.manifest.export.encoder_parity.quantized.token_errors
    measured = verify_against(bundle, str(ctc_folder)).quantized.token_errors
    # Of a few hundred tokens, all of which PyTorch and the float32 graph write alike but for ties.
    assert measured == pytest.approx(recorded, abs=0.01)
    assert 0 < recorded < 0.2


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("ctc", {"stride": 0}), ("ctc", {"blank": 18}), ("ctc", {"offset": -400}), ("audio", {"kind": "mel"}),
        ("audio", {"stacked": 2}), ("audio", {"kind": "fbank"}),
    ],
)  # fmt: skip
def test_damaged_manifests(ctc_bundle, tmp_path, part, changes):
    copy = shutil.copytree(ctc_bundle, tmp_path / "copy")
    encoder = read_manifest_json(copy)["encoder"]
    encoder[part] |= changes
    change(copy, encoder=encoder)
    with pytest.raises(BundleError, match=f"encoder.{part}") as caught:
        open_bundle(copy)
    assert "\n" not in str(caught.value)
