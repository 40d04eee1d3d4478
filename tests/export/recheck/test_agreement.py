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


@pytest.mark.parametrize(("mean_kl", "close"), [(0.0129, True), (0.0131, False), (0.0, True), (-1e-9, True)])
def test_three_times_the_recorded_loss_and_a_thousandth(mean_kl, close):
    agrees(replace(MEASURED, mean_kl=mean_kl), made(replace(FLOATS, quantized=MEASURED)), close)


@pytest.mark.parametrize(("share", "close"), [(1.0019, True), (0.9981, True), (1.0021, False), (0.9979, False)])
def test_a_perplexity_of_two_thousandths_more_or_less(share, close):
    now = replace(MEASURED, perplexity_original=MEASURED.perplexity_original * share)
    agrees(now, made(replace(FLOATS, quantized=MEASURED)), close)


def vectors(cosine_mean):
    return QuantizedEncoderParity(48, cosine_mean=cosine_mean, cosine_worst=0.9)


@pytest.mark.parametrize(
    ("now", "before", "close"),
    [
        # 0.001 is lost, so 0.004 may be.
        (vectors(0.9961), vectors(0.999), True),
        (vectors(0.9959), vectors(0.999), False),
        (vectors(1.0), vectors(0.999), True),
        (vectors(math.nan), vectors(0.999), False),
        (vectors(0.9991), vectors(1.0), True),
        (vectors(0.9989), vectors(1.0), False),
        # What was not recorded cannot be found again, and what has neither vectors nor scores is not compared.
        (vectors(0.9999), QuantizedEncoderParity(48, score_mean=0.1), False),
        (QuantizedEncoderParity(48, score_mean=0.1), vectors(0.999), False),
        (QuantizedEncoderParity(48), vectors(0.999), True),
        # Of vectors the cosine counts, whatever their scores.
        (replace(vectors(0.999), score_mean=9.0), replace(vectors(0.999), score_mean=0.0), True),
    ],
)
def test_vectors_by_their_cosine(now, before, close):
    agrees(now, made(encoder_parity=EncoderParity(1e-5, 1e-5, 1.0, 5e-4, before)), close)


def agrees(now, bundle, close):
    if close:
        check_as_recorded(now, bundle, "source")
    else:
        with pytest.raises(ExportError, match=r"^source is not what bundle was made from: "):
            check_as_recorded(now, bundle, "source")


@pytest.mark.parametrize(("worst", "close"), [(5e-3, True), (5.01e-3, False)])
def test_floats_may_differ_by_the_tolerance(worst, close):
    parity = replace(FLOATS, step=worst)
    if close:
        check_float_bundle(parity, made(), "source")
    else:
        with pytest.raises(ExportError, match=r"outputs differ by 0\.005, and 0\.005 is allowed$"):
            check_float_bundle(parity, made(), "source")


@pytest.mark.parametrize(("rows", "width"), [(39, 7), (40, 6), (41, 7), (40, 8)])
def test_another_shape_of_a_table(tmp_path, capsys, rows, width):
    own = table(tmp_path / "own.txt", 1)
    assert run(["export", str(own), str(tmp_path / "bundle"), "--quantize", "none"]) == 0
    other = tmp_path / "other.txt"
    other.write_text("".join(f"w{row} {' '.join(['0.5'] * width)}\n" for row in range(rows)))
    capsys.readouterr()
    assert run(["verify", str(tmp_path / "bundle"), "--against", str(other)]) == 1
    assert one_line(capsys.readouterr().err).endswith(f"it has {rows + 1} vectors of {width} numbers, not 41 of 7\n")
