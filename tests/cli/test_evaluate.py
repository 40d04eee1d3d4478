"""`triform evaluate`: what is measured for which bundle and file, and what is refused."""

from __future__ import annotations

import json
import sys

import pytest

import triform
from triform.export.samples import texts
from triform.runtime.extras import install_command


@pytest.fixture
def file_of(tmp_path):
    def write(*rows, name="file.jsonl"):
        path = tmp_path / name
        path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
        return path

    return write


def test_a_text_file_gives_the_perplexity_that_score_prints(call, float_bundle, file_of):
    file = file_of(texts.read_text("evaluation")[:2000], name="text.txt")
    code, out, _ = call("evaluate", float_bundle, file, "--json")
    _, scored, _ = call("score", float_bundle, file, "--json")
    result, expected = json.loads(out), json.loads(scored)
    assert code == 0
    # The file's last line break is a token for both.
    assert result["metrics"]["perplexity"]["value"] == pytest.approx(expected["perplexity"], rel=1e-6)
    assert result["metrics"]["perplexity"]["low"] < expected["perplexity"] < result["metrics"]["perplexity"]["high"]
    assert (result["tokens"], result["bytes"]) == (expected["tokens"], file.stat().st_size)
    assert result["items"] == -(-(expected["tokens"] - 1) // 128)


def test_a_bundle_is_as_good_as_itself(call, float_bundle, file_of):
    file = file_of(texts.read_text("evaluation")[:1500], name="text.txt")
    code, out, _ = call("evaluate", float_bundle, file, "--against", float_bundle, "--window", "64")
    lines = out.splitlines()
    assert code == 0 and "window 64, stride 32" in lines[2]
    assert lines[3].endswith("difference +0.0000 (95 % interval 0.0000 to 0.0000)")
    assert lines[-1].startswith("better on 0, worse on 0, equal on ")


def test_answers_of_a_decoder_are_compared_with_targets(call, float_bundle, file_of):
    answer = triform.load_decoder(float_bundle).generate(
        "The lamp", triform.GenerationOptions(max_new_tokens=12, temperature=0)
    )
    file = file_of({"source": "The lamp", "target": answer.text}, {"source": "The lamp", "target": answer.text})
    code, out, _ = call("evaluate", float_bundle, file, "--max-new-tokens", "12", "--json")
    assert code == 0 and json.loads(out)["metrics"]["chrF2"]["value"] == pytest.approx(100)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.tsv"])
def test_the_cosines_of_an_encoder_are_compared_with_scores(call, sentence_bundle, file_of, name):
    pairs = [("a boat", "a ship", 1), ("a boat", "the moon", 3), ("lamp", "light", 2)]
    rows = [dict(zip(("text1", "text2", "score"), pair, strict=True)) for pair in pairs]
    table = ["text1\ttext2\tscore", *("\t".join(map(str, pair)) for pair in pairs)]
    code, out, _ = call("evaluate", sentence_bundle, file_of(*(rows if name.endswith("l") else table), name=name))
    assert code == 0 and [line.split()[0] for line in out.splitlines()] == ["Spearman", "Pearson", "3"]


def test_a_translation_is_compared_with_its_target(call, exported_family, file_of):
    _, bundle = exported_family("t5")
    file = file_of({"source": "The house is small.", "target": "Das Haus ist klein."})
    code, out, err = call("evaluate", bundle, file, "--target-lang", "de", "--max-new-tokens", "5", "--json")
    assert (code, err) == (0, "")
    assert set(json.loads(out)["metrics"]) == {"chrF2", "BLEU"}


def test_recordings_are_compared_with_transcripts(call, exported_family, speech_clips, file_of):
    _, bundle = exported_family("whisper")
    clip, words = speech_clips[0]
    code, out, _ = call("evaluate", bundle, file_of({"audio": str(clip), "text": words}), "--json")
    assert code == 0
    assert set(json.loads(out)["metrics"]) == {"WER", "CER"}
    assert json.loads(out)["metrics"]["WER"]["low"] is None


def test_a_file_without_the_columns_is_refused_by_their_names(call, float_bundle, sentence_bundle, file_of):
    file = file_of({"label": "good"})
    assert call("evaluate", float_bundle, file)[::2] == (
        2,
        f"error: {file} cannot be used: line 1: it is not an object with a text called 'text'; a decoder needs the "
        "columns source and target, or a text file\n",
    )
    file = file_of({"text1": "a", "text2": "b"})
    needs = "this task needs the columns text1, text2 and score, or query, document and score"
    assert call("evaluate", sentence_bundle, file)[::2] == (
        2,
        f"error: line 1 of {file} has no column score; {needs}\n",
    )
    file = file_of("a,b", "1,2", name="table.csv")
    assert call("evaluate", sentence_bundle, file)[2].endswith(f"the table has a, b; {needs}\n")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text1": "a", "text2": "b", "score": "high"}], "line 1 of {}: score is not a number"),
        ([{"text1": "a", "text2": 3, "score": 1}], "line 1 of {}: text2 is not a text"),
        ([], "{} holds no items"),
    ],
)
def test_values_that_cannot_be_used_are_refused(call, sentence_bundle, file_of, rows, message):
    file = file_of(*rows)
    assert call("evaluate", sentence_bundle, file)[::2] == (2, f"error: {message.format(file)}\n")


def test_an_option_of_another_task_is_refused(call, sentence_bundle, file_of):
    file = file_of({"text1": "a", "text2": "b", "score": 1})
    message = "error: --language does not apply to this task and file; leave it out\n"
    assert call("evaluate", sentence_bundle, file, "--language", "de")[::2] == (2, message)


def test_a_missing_package_is_named(call, float_bundle, file_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    file = file_of({"source": "a", "target": "b"})
    code, _, err = call("evaluate", float_bundle, file, "--max-new-tokens", "1")
    assert (code, err) == (1, f"error: chrF and BLEU need sacrebleu: {install_command('evaluate')}\n")
