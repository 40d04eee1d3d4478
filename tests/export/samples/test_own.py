"""Texts and recordings of the user's own to calibrate on, and what is wrong with some."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from triform.cli.main import run
from triform.export.forms import decoder
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.samples.own import calibration_text, recordings
from triform.export.samples.texts import calibration_mixture
from triform.runtime.errors import InputError


def test_texts_one_after_another(tmp_path):
    (tmp_path / "a.txt").write_text("Εν αρχή", encoding="utf-8")
    (tmp_path / "b.txt").write_text("x = 1\n", encoding="utf-8")
    assert calibration_text([str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]) == "Εν αρχή\n\nx = 1\n"
    assert calibration_text([]) == calibration_mixture()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read to calibrate on it: No such file or directory"),
        (b"\xff\xfe\x00", "is not a text in UTF-8; calibrate on plain text"),
        (b" \n\t", "holds no words to calibrate on"),
    ],
)
def test_files_that_are_no_texts(content, reason, checkpoint, tmp_path, capsys, monkeypatch):
    # They are refused before the weights are loaded, which may take long.
    monkeypatch.setattr(decoder, "load", pytest.fail)
    path = tmp_path / "own.txt"
    if content is not None:
        path.write_bytes(content)
    command = ["export", str(checkpoint), str(tmp_path / "out"), "--quantize", "int8", "--calibrate", str(path)]
    assert run(command) != 0
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"{path} {reason}")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scheme", ["none", "keep"])
def test_schemes_that_measure_nothing(scheme, checkpoint, tmp_path):
    with pytest.raises(InputError, match="`calibrate` does not go with `quantize`"):
        export(str(checkpoint), tmp_path / "out", ExportOptions(quantize=scheme, calibrate=("a.txt",)))


def test_another_text_makes_another_bundle(checkpoint, int4_bundle, tmp_path):
    (tmp_path / "own.txt").write_text("0 1 2 3 4 5 6 7 8 9 " * 40, encoding="utf-8")
    options = ExportOptions(quantize="int4", block_size=32, calibrate=(str(tmp_path / "own.txt"),))
    export(str(checkpoint), tmp_path / "out", options)
    own, usual = ((folder / "decoder.onnx.data").read_bytes() for folder in (tmp_path / "out", int4_bundle))
    assert len(own) == len(usual)
    assert own != usual


def test_recordings_are_cut(tmp_path):
    """Seventy seconds are three pieces, resampled; two files are heard in their order."""
    long, short = tmp_path / "long.wav", tmp_path / "short.wav"
    soundfile.write(long, np.full(70 * 8000, 0.25, np.float32), 8000)
    soundfile.write(short, np.full(16000, -0.5, np.float32), 16000, subtype="FLOAT")
    pieces = recordings([str(long), str(short)], 16000)
    assert [len(piece) / 16000 for piece in pieces] == pytest.approx([29, 29, 12, 1], abs=0.01)
    assert pieces[1].mean() == pytest.approx(0.25, abs=1e-3)
    assert pieces[3].mean() == -0.5


def test_long_recordings_are_heard_in_parts(tmp_path):
    sound = np.repeat(np.linspace(0, 0.5, 30, dtype=np.float32), 29 * 1000)
    soundfile.write(tmp_path / "talk.wav", sound, 1000, subtype="FLOAT")
    pieces = recordings([str(tmp_path / "talk.wav")], 1000)
    assert len(pieces) == 16
    assert [float(pieces[index].mean()) for index in (0, -1)] == pytest.approx([0, 0.5], abs=1e-6)


def test_a_file_that_is_no_recording(tmp_path):
    (tmp_path / "talk.wav").write_text("no sound")
    with pytest.raises(InputError, match=r"talk\.wav"):
        recordings([str(tmp_path / "talk.wav")], 16000)
