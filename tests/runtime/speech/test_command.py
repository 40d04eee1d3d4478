"""`triform transcribe` from the outside: formats, files, and what is refused in one line."""

from __future__ import annotations

import io
import json
import os
import sys
import types
import wave

import numpy as np
import pytest
import soundfile

import triform
from tests.helpers.signals import silence
from tests.helpers.sounds import RATE
from triform.runtime.speech.transcription import transcribe


@pytest.fixture(autouse=True)
def isolated(monkeypatch):
    monkeypatch.delenv("TRIFORM_BUNDLE", raising=False)


@pytest.fixture(scope="module")
def clip(speech_clips):
    return speech_clips[1][0]


@pytest.fixture(scope="module")
def segments(whisper_int8, clip):
    samples, _ = soundfile.read(clip, dtype="float32")
    return list(transcribe(triform.load(whisper_int8), samples))


def one_line(err):
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_text(call, whisper_int8, clip, segments):
    code, out, err = call("transcribe", whisper_int8, clip)
    assert (code, err) == (0, "")
    assert out == "".join(f"{segment.text.strip()}\n" for segment in segments)


def test_json_of_several(call, whisper_int8, clip, segments, tmp_path):
    soundfile.write(tmp_path / "silent.wav", silence(1), RATE)
    code, out, err = call("transcribe", whisper_int8, clip, tmp_path / "silent.wav", "--json")
    assert (code, err) == (0, f"note: no speech in {tmp_path / 'silent.wav'}\n")
    decoder = json.JSONDecoder()
    first, end = decoder.raw_decode(out)
    second, _ = decoder.raw_decode(out[end:].lstrip())
    assert first["file"] == str(clip)
    assert first["segments"][0]["tokens"] == segments[0].tokens
    assert first["segments"][0]["words"] == []
    assert (second["text"], second["segments"]) == ("", [])


def test_subtitles(call, whisper_int8, clip, segments, tmp_path):
    code, out, _ = call("transcribe", whisper_int8, clip, "--format", "srt", "--max-line-width", 20)
    assert code == 0
    number, times, *lines = out.split("\n\n")[0].splitlines()
    assert (number, times[:17]) == ("1", "00:00:00,000 --> ")
    assert max(map(len, lines)) <= 20
    assert " ".join(lines) == segments[0].text.strip()
    code, out, _ = call("transcribe", whisper_int8, clip, "--output", tmp_path / "a.vtt")
    assert (code, out) == (0, "")
    assert (tmp_path / "a.vtt").read_text().startswith("WEBVTT\n\n00:00.000"[:8])


def test_a_folder(call, whisper_int8, speech_clips, tmp_path):
    paths = [path for path, _ in speech_clips[1:3]]
    code, out, _ = call("transcribe", whisper_int8, *paths, "--output", tmp_path / "new" / "folder", "--batch", 2)
    assert (code, out) == (0, "")
    found = {path.name: path.read_text() for path in (tmp_path / "new" / "folder").iterdir()}
    assert set(found) == {f"{path.stem}.txt" for path in paths}
    assert found[f"{paths[0].stem}.txt"].startswith("He was not")


def test_resuming_a_folder(call, whisper_int8, speech_clips, tmp_path):
    """What has a transcript keeps it, unless the recording is newer."""
    paths = [path for path, _ in speech_clips[1:3]]
    arguments = ("transcribe", whisper_int8, *paths, "--output", tmp_path)
    (tmp_path / f"{paths[0].stem}.txt").write_text("kept")
    code, out, err = call(*arguments, "--resume")
    assert (code, out, err) == (0, "", "note: 1 of 2 recordings have transcripts\n")
    assert (tmp_path / f"{paths[0].stem}.txt").read_text() == "kept"
    assert (tmp_path / f"{paths[1].stem}.txt").read_text().startswith("Unless")
    for path in paths:
        os.utime(tmp_path / f"{path.stem}.txt", (0, 0))
    assert call(*arguments[:3], "--output", tmp_path / f"{paths[0].stem}.txt", "--resume") == (0, "", "")
    assert (tmp_path / f"{paths[0].stem}.txt").read_text().startswith("He was not")
    code, _, err = call(*arguments[:4], "--resume")
    assert (code, one_line(err)) == (2, "error: --resume continues a folder of transcripts: name it with --output\n")


def test_several_on_standard_output(call, whisper_int8, speech_clips):
    paths = [path for path, _ in speech_clips[1:3]]
    _, out, _ = call("transcribe", whisper_int8, *paths)
    assert out.startswith(f"==> {paths[0]} <==\nHe was not")
    assert f"\n==> {paths[1]} <==\nUnless" in out


def test_standard_input(call, whisper_int8, clip, segments, monkeypatch):
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=io.BytesIO(clip.read_bytes())))
    code, out, _ = call("transcribe", whisper_int8, "-")
    assert (code, out) == (0, "".join(f"{segment.text.strip()}\n" for segment in segments))


def test_words(call, whisper_bundle, clip):
    _, out, _ = call("transcribe", whisper_bundle, clip, "--word-timestamps", "--json")
    words = [word for segment in json.loads(out)["segments"] for word in segment["words"]]
    assert [word["text"] for word in words][:2] == [" He", " was"]


def test_words_need_their_export(call, whisper_int8, clip):
    code, _, err = call("transcribe", whisper_int8, clip, "--word-timestamps", "--json")
    assert code == 1
    assert "export the model again, with --word-timestamps" in one_line(err)


def test_stats(call, whisper_int8, clip):
    _, _, err = call("transcribe", whisper_int8, clip, "--stats", "--vad")
    assert " s of audio in " in err
    assert " times as fast as it plays), 1 segments" in err


def written(path, samples, **options):
    soundfile.write(path, samples, **options)
    return path


def pcm_u8(tmp_path, samples):
    return written(tmp_path / "a.wav", samples, samplerate=RATE, subtype="PCM_U8")


def fast(tmp_path, samples):
    return written(tmp_path / "a.flac", np.repeat(samples, 12), samplerate=192000)


def six_channels(tmp_path, samples):
    return written(tmp_path / "a.wav", np.repeat(samples[:, None], 6, axis=1), samplerate=RATE)


@pytest.mark.parametrize("make", [pcm_u8, fast, six_channels])
def test_unusual_sound(call, whisper_int8, sounds, tmp_path, make):
    code, out, err = call("transcribe", whisper_int8, make(tmp_path, sounds[1]))
    assert (code, err) == (0, "")
    assert out.lower().startswith("he was not")
    assert "young man" in out


def test_what_is_cut_off_is_transcribed(call, whisper_int8, clip, tmp_path):
    content = clip.read_bytes()
    (tmp_path / "a.wav").write_bytes(content[: len(content) * 3 // 4])
    code, out, err = call("transcribe", whisper_int8, tmp_path / "a.wav")
    assert code == 0
    assert out.lower().startswith("he was")
    assert err.startswith("note: ")
    assert "is cut off or damaged" in err


def test_silence(call, whisper_int8, tmp_path):
    soundfile.write(tmp_path / "a.wav", silence(40), RATE)
    code, out, err = call("transcribe", whisper_int8, tmp_path / "a.wav")
    assert (code, out, err) == (0, "", f"note: no speech in {tmp_path / 'a.wav'}\n")


def header_only(path):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("a.wav", lambda path: path.write_bytes(b""), "is empty"),
        ("a.txt", lambda path: path.write_text("Not sound at all. " * 100), "is not audio"),
        ("a.wav", header_only, "is an audio file without samples"),
        ("a.wav", lambda path: None, "cannot be read: No such file"),
        ("a.wav", lambda path: path.mkdir(), "is a folder"),
    ],
)
def test_bad_files(call, whisper_int8, clip, tmp_path, name, make, message):
    make(tmp_path / name)
    code, _, err = call("transcribe", whisper_int8, tmp_path / name)
    assert code == 2
    assert message in one_line(err)
    code, out, err = call("transcribe", whisper_int8, tmp_path / name, clip, "--skip-errors")
    assert code == 0
    assert "He was not" in out
    assert err.startswith(f"note: skipped: {tmp_path / name}")
    code, out, err = call("transcribe", whisper_int8, tmp_path / name, "--skip-errors")
    assert (code, out) == (2, "") and err.endswith("error: none of the 1 recordings can be used\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--language", "xx"], "English only, not 'xx'"),
        (["--task", "translate"], "cannot translate"),
        (["--task", "sing"], "--task must be transcribe or translate"),
        (["--format", "doc"], "--format must be text, json, srt, vtt"),
        (["--json", "--format", "srt"], "not both"),
        (["--max-line-width", "40"], "is for subtitles, which --format srt and vtt write"),
        (["--word-timestamps"], "--word-timestamps changes only what --format json, srt and vtt write"),
        (["--language", "auto"], "--language auto has nothing to detect: this model knows English only"),
        (["--format", "srt", "--max-line-width", "0"], "--max-line-width must be at least 1"),
        (["--batch", "0"], "--batch must be at least 1"),
        (["--batch", "2", "--condition-on-previous-text"], "--condition-on-previous-text is for one window after"),
        (["--vad-threshold", "0.4"], "--vad-threshold needs --vad"),
        (["--vad", "--vad-threshold", "4"], "must be between 0 and 1"),
        (["--output", "/dev/null/a.txt"], "cannot be written"),
    ],
)
def test_bad_options(call, whisper_int8, clip, arguments, message):
    code, _, err = call("transcribe", whisper_int8, clip, *arguments)
    assert code == 2
    assert message in one_line(err)


def test_bad_outputs(call, whisper_int8, clip, tmp_path):
    (tmp_path / "file").touch()
    for arguments, message in [
        ([clip, clip, "--format", "vtt"], "needs --output FOLDER"),
        ([clip, clip, "--output", tmp_path], "would both go to"),
        ([clip, clip, "--output", tmp_path / "file"], "is a file, but there are 2 recordings"),
        ([clip, clip, "--output", tmp_path / "file" / "folder"], "cannot be made"),
        ([], "no recording"),
    ]:
        code, _, err = call("transcribe", whisper_int8, *arguments)
        assert code == 2
        assert message in one_line(err)


def test_a_recording_is_never_written_over(call, whisper_int8, clip, tmp_path):
    recording = tmp_path / "talk.wav"
    recording.write_bytes(clip.read_bytes())
    for output, message in (
        (recording, "it is the input"), (whisper_int8 / "manifest.json", "it is in the folder of the bundle"),
    ):  # fmt: skip
        before = output.read_bytes()
        code, _, err = call("transcribe", whisper_int8, clip, recording, "--output", output)
        assert code == 2
        code, _, err = call("transcribe", whisper_int8, recording, "--output", output)
        assert code == 2
        assert message in one_line(err)
        assert output.read_bytes() == before


def test_a_text_bundle(call, float_bundle, clip):
    code, _, err = call("transcribe", float_bundle, clip)
    assert code == 1
    assert "use `triform generate`" in one_line(err)


def test_bench_gives_the_speed_of_a_recording(call, whisper_int8, clip):
    code, out, err = call("bench", whisper_int8, "--file", clip, "--runs", 1, "--json")
    assert (code, err) == (0, "")
    figures = json.loads(out)
    assert figures["recording_seconds"] == pytest.approx(soundfile.info(clip).duration)
    speed = figures["recording_seconds"] / figures["transcription_seconds"]
    assert figures["times_faster_than_speech"] == pytest.approx(speed)
    code, out, err = call("bench", whisper_int8)
    assert (code, "this model reads a recording: name one with --file" in one_line(err)) == (2, True)
