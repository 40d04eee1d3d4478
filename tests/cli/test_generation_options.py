"""Options of generation and `triform score` from the outside."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import fields

import pytest

import triform
from triform.cli.arguments.generation import CONTEXT, ENCODER_DECODER, generation_options
from triform.export.samples import texts
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation

PROMPT = "The ferry left the harbor"
GREEDY = ("--raw", "--max-new-tokens", 40, "--temperature", 0)


def one_line(err):
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_every_option_has_a_flag():
    known = {item.name for kind in (GenerationOptions, Truncation, Penalties, Constraints) for item in fields(kind)}
    # Groups are no options; what a user would write as ids is a text on the command line; one command prints logprobs.
    known -= {"truncation", "penalties", "constraints", "bad_words_ids", "logprobs"}
    assert {one.name for one in (*ENCODER_DECODER, *CONTEXT)} == known


def test_options_are_read():
    found = generation_options(
        {
            "top_k": 5, "min_p": 0.1, "stop": ["a", "b"], "stop_token": ["7", "<|end|>"],
            "order": "top-k, temperature", "dry_multiplier": 0.5,
            "dry_sequence_breakers": ["x"], "exponential_decay_length_penalty": "5,1.5",
            "logit_bias": ["3=-1.5", "4=2"],
            "bad_words": ["no"], "suppress_tokens": "1,2", "begin_suppress_tokens": "3", "forced_tokens": ["0=7"],
            "forced_eos_token_id": "2", "seed": None,
        }
    )  # fmt: skip
    assert found == GenerationOptions(
        top_k=5,
        stop=("a", "b"),
        stop_token=(7, "<|end|>"),
        order=("top-k", "temperature"),
        truncation=Truncation(min_p=0.1),
        penalties=Penalties(
            dry_multiplier=0.5, dry_sequence_breakers=("x",), exponential_decay_length_penalty=(5, 1.5)
        ),
        constraints=Constraints(
            logit_bias={3: -1.5, 4: 2.0},
            bad_words=("no",),
            suppress_tokens=(1, 2),
            begin_suppress_tokens=(3,),
            forced_tokens={0: 7},
            forced_eos_token_id=(2,),
        ),
    )


def test_options_reach_the_model(call, float_bundle):
    options = GenerationOptions(max_new_tokens=40, temperature=0, penalties=Penalties(repetition_penalty=1.5))
    expected = triform.load(float_bundle).generate(PROMPT, options, raw=True).text
    assert call("generate", float_bundle, PROMPT, *GREEDY)[1] != expected + "\n"
    assert call("generate", float_bundle, PROMPT, *GREEDY, "--repetition-penalty", 1.5) == (0, expected + "\n", "")


def test_stop_strings_are_not_printed(call, float_bundle):
    whole = call("generate", float_bundle, PROMPT, *GREEDY)[1]
    stop = whole[20:23]
    _, out, _ = call("generate", float_bundle, PROMPT, *GREEDY, "--stop", "@@@@", "--stop", stop)
    assert out == whole[: whole.find(stop)] + "\n"
    _, out, _ = call("generate", float_bundle, PROMPT, *GREEDY, "--stop", stop, "--json")
    assert json.loads(out)["finish_reason"] == "stop"


def test_logprobs_are_in_the_json(call, float_bundle):
    _, out, _ = call("generate", float_bundle, PROMPT, *GREEDY, "--json", "--logprobs", 2)
    found = json.loads(out)
    assert [one["id"] for one in found["logprobs"]] == found["token_ids"]
    for one in found["logprobs"]:
        assert set(one) == {"id", "text", "logprob", "top"}
        # Greedy, so the likeliest of all is the one generated.
        assert one["top"][0] == {key: one[key] for key in ("id", "text", "logprob")}
        assert one["top"][0]["logprob"] >= one["top"][1]["logprob"]
        assert len(one["top"]) == 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--stop", ""], "--stop must be a text that is not empty"),
        (["--order", "top-k,warmth"], "--order has no step 'warmth'; the steps are logit-bias"),
        (["--order", "top-k,top-k"], "--order names top-k twice"),
        (["--logprobs", "3"], "--logprobs needs --json, which prints them"),
        (["--logprobs", "-1", "--json"], "--logprobs must be 0 or more"),
        (["--min-new-tokens", "5", "--max-new-tokens", "4"], "--min-new-tokens 5 is more than --max-new-tokens 4"),
        (["--logit-bias", "x=1"], "--logit-bias must be ID=BIAS, but 'x' is not a number"),
        (["--logit-bias", "1"], "--logit-bias must be ID=BIAS, but '' is not a number"),
        (["--suppress-tokens", "1,,2"], "--suppress-tokens must be token ids"),
        (["--suppress-tokens", "100000"], "--suppress-tokens names token 100000; the vocabulary has 400"),
        (["--exponential-decay-length-penalty", "5"], "must be START,FACTOR"),
        (["--bad-words", ""], "--bad-words must not be empty"),
        (["--json-schema", "nowhere.json"], "--json-schema in nowhere.json cannot be read"),
        (["--choices", "yes,,no"], "--choices must be texts that are not empty"),
        (["--regex", "a", "--choices", "yes,no"], "--regex and --choices cannot be used together"),
        (["--regex", "("], "--regex cannot be used: "),
        (["--mirostat-tau", "3", "--top-p", "0.5"], "leave out --top-p"),
        (["--temperature", "0", "--suppress-tokens", ",".join(map(str, range(400)))], "every token is banned"),
    ],
)
def test_bad_options_are_usage_errors(call, float_bundle, arguments, text):
    code, out, err = call("generate", float_bundle, PROMPT, *arguments)
    assert (code, out.strip()) == (2, "")
    assert text in one_line(err)


def test_an_answer_has_the_form_that_a_file_or_a_text_asks_for(call, float_bundle, tmp_path):
    (tmp_path / "schema.json").write_text('{"enum": ["été", 7]}', encoding="utf-8")
    (tmp_path / "grammar.lark").write_text('start: "ab" | "cd"')
    for arguments, answers in (
        (["--json-schema", tmp_path / "schema.json"], ['"été"', "7"]),
        (["--grammar", tmp_path / "grammar.lark"], ["ab", "cd"]),
        (["--regex", "x{3}"], ["xxx"]),
        (["--choices", "yes, no"], ["yes", "no"]),
    ):
        code, out, err = call("generate", float_bundle, PROMPT, *GREEDY, *arguments)
        assert (code, err, out.endswith("\n")) == (0, "", True)
        assert out[:-1] in answers
    (tmp_path / "schema.json").write_bytes(b"\xff")
    code, out, err = call("generate", float_bundle, PROMPT, "--json-schema", tmp_path / "schema.json")
    assert (code, out) == (2, "")
    assert "is not UTF-8" in one_line(err)


def test_score(call, float_bundle, tmp_path, monkeypatch):
    text = texts.read_text("evaluation")
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    expected = triform.load(float_bundle).perplexity(text)
    code, out, _ = call("score", float_bundle, tmp_path / "text.txt", "--json")
    found = json.loads(out)
    assert (code, set(found)) == (0, {"perplexity", "loss", "tokens"})
    assert found["perplexity"] == pytest.approx(expected, rel=1e-9)
    code, out, err = call("score", float_bundle, tmp_path / "text.txt")
    assert (code, err) == (0, "")
    assert out.startswith(f"perplexity {expected:.4f}, loss ")
    for arguments in ([], ["-"]):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert call("score", float_bundle, *arguments) == (0, out, "")
    monkeypatch.setenv("TRIFORM_BUNDLE", str(float_bundle))
    assert call("score", tmp_path / "text.txt") == (0, out, "")


def test_texts_that_cannot_be_scored(call, float_bundle, tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "short").write_text("a")
    for name, text in (("binary", "is not UTF-8"), ("nowhere", "cannot be read"), ("short", "at least two tokens")):
        code, out, err = call("score", float_bundle, tmp_path / name)
        assert (code, out) == (2, "")
        assert text in one_line(err)
