"""`triform verify --against` refuses a checkpoint of the same shape that a bundle was not made from."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.commands import one_line
from triform.cli.main import run
from triform.export.recheck.agreement import check_as_recorded, check_float_bundle, check_prompts_as_recorded
from triform.runtime.bundle.export_record import (
    EncoderParity,
    Parity,
    QuantizedEncoderParity,
    QuantizedParity,
)
from triform.runtime.errors import ExportError

MEASURED = QuantizedParity(0.97, 0.004, 37.4, 38.0, 255)
FLOATS = Parity(1e-4, 1e-4, 1e-4, 1e-4, 10.0, 5e-3)


def made(parity=None, encoder_parity=None):
    """A bundle with a record of its export."""
    export = SimpleNamespace(parity=parity, encoder_parity=encoder_parity)
    return SimpleNamespace(folder=Path("bundle"), manifest=SimpleNamespace(export=export))


def table(path, sign):
    vectors = np.random.default_rng(3).normal(size=(40, 7))
    lines = [f"w{row} {' '.join(f'{sign * value:.4f}' for value in vector)}\n" for row, vector in enumerate(vectors)]
    path.write_text("".join(lines))
    return path


@pytest.mark.parametrize("quantize", ["int8", "none"])
def test_other_vectors_for_the_same_words(tmp_path, capsys, quantize):
    own, other = table(tmp_path / "own.txt", 1), table(tmp_path / "other.txt", -1)
    assert run(["export", str(own), str(tmp_path / "bundle"), "--quantize", quantize]) == 0
    capsys.readouterr()
    assert run(["verify", str(tmp_path / "bundle"), "--against", str(own)]) == 0
    assert capsys.readouterr().err == ""
    assert run(["verify", str(tmp_path / "bundle"), "--against", str(other)]) == 1
    assert f"is not what {tmp_path / 'bundle'} was made from" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("now", "message"),
    [
        (replace(MEASURED, mean_kl=0.02), r"divergence of predictions is 0\.02 \(0\.004 when the bundle was made\)"),
        (replace(MEASURED, mean_kl=math.nan), "divergence of predictions is nan"),
        (replace(MEASURED, perplexity_original=37.6), r"its perplexity is 37\.6, and that of the original was 37\.4"),
    ],
)
def test_other_predictions(now, message):
    bundle = made(replace(FLOATS, quantized=MEASURED))
    check_as_recorded(MEASURED, bundle, "source")
    with pytest.raises(ExportError, match=message):
        check_as_recorded(now, bundle, "source")


def test_more_tokens_have_another_perplexity():
    bundle = made(replace(FLOATS, quantized=MEASURED))
    check_as_recorded(replace(MEASURED, perplexity_original=33.1, tokens=1022), bundle, "source")


def test_other_scores():
    recorded = EncoderParity(1e-5, 1e-5, 1.0, 5e-4, QuantizedEncoderParity(48, score_mean=0.0005, score_worst=0.001))
    bundle = made(encoder_parity=recorded)
    check_as_recorded(recorded.quantized, bundle, "source")
    with pytest.raises(ExportError, match=r"scores differ by 0\.08 \(0\.0005 when"):
        check_as_recorded(QuantizedEncoderParity(48, score_mean=0.08, score_worst=0.09), bundle, "source")


def test_a_bundle_without_a_record():
    check_as_recorded(replace(MEASURED, mean_kl=5.0), made(), "source")


def test_what_reads_long_prompts_has_a_record_of_its_own():
    check_prompts_as_recorded(MEASURED, made(), "source")
    check_prompts_as_recorded(MEASURED, made(replace(FLOATS, quantized=replace(MEASURED, mean_kl=1e-6))), "source")
    bundle = made(replace(FLOATS, quantized=replace(MEASURED, mean_kl=9.0), prompts=MEASURED))
    check_prompts_as_recorded(MEASURED, bundle, "source")
    with pytest.raises(ExportError, match=r"divergence of predictions is 0\.02 \(0\.004 when the bundle was made\)"):
        check_prompts_as_recorded(replace(MEASURED, mean_kl=0.02), bundle, "source")


@pytest.mark.parametrize("way", ["prefill", "chunked", "step", "ragged"])
@pytest.mark.parametrize("difference", [0.2, math.nan])
def test_other_logits(way, difference):
    check_float_bundle(FLOATS, made(), "source")
    with pytest.raises(ExportError, match=r"source is not what bundle was made from: outputs differ by .*, and 0\.005"):
        check_float_bundle(replace(FLOATS, **{way: difference}), made(), "source")
