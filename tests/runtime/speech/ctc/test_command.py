"""`triform transcribe` with a model for CTC, from the outside."""

from __future__ import annotations

import json

import pytest
import soundfile

from triform.export.samples.vowels import synthetic_voice

RATE = 16000


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "said.wav"
    soundfile.write(path, synthetic_voice(2.3, RATE, 5), RATE, subtype="FLOAT")
    return path


def test_formats(call, ctc_bundle, ctc_model, recording):
    segments = ctc_model.transcribe(recording)
    code, out, err = call("transcribe", ctc_bundle, recording)
    assert (code, err) == (0, "")
    assert out == "".join(f"{' '.join(segment.text.split())}\n" for segment in segments)
    code, out, _ = call("transcribe", ctc_bundle, recording, "--json", "--word-timestamps", "--num-beams", "3")
    document = json.loads(out)
    assert code == 0
    assert document["segments"][0]["words"]
    assert document["language"] is None
    code, out, _ = call("transcribe", ctc_bundle, recording, "--format", "srt")
    assert (code, out.startswith("1\n00:00:0")) == (0, True)


@pytest.mark.parametrize(
    "option",
    [
        ("--language", "en"), ("--task", "translate"), ("--no-timestamps",), ("--best-of", "2"), ("--temperature", "0"),
        ("--initial-prompt", "A"), ("--hotwords", "A"), ("--condition-on-previous-text",), ("--max-new-tokens", "3"),
        ("--compression-ratio-threshold", "3"), ("--logprob-threshold", "-3"), ("--no-speech-threshold", "0.1"),
        ("--seed", "1"),
    ],
)  # fmt: skip
def test_options_of_other_models_are_refused(call, ctc_bundle, recording, option):
    code, out, err = call("transcribe", ctc_bundle, recording, *option)
    flag = option[0].replace("--no-timestamps", "--timestamps").replace("--no-condition", "--condition")
    assert (code, out) == (2, "")
    assert err == (
        f"error: {flag} is for models with a prompt and sampling, and this one hears all tokens at once (CTC); "
        "leave it out\n"
    )


def test_times_of_words_are_shown_in_json(call, ctc_bundle, recording):
    code, out, err = call("transcribe", ctc_bundle, recording, "--word-timestamps", "--format", "srt")
    assert (code, out) == (2, "")
    assert err == "error: --word-timestamps shows only in JSON with this model (--json); leave it out\n"


def test_commands_of_encoders_name_the_right_one(call, ctc_bundle):
    code, _, err = call("embed", ctc_bundle, "A text")
    assert (code, "use `triform transcribe`" in err) == (1, True)
