"""Options that would have no effect are refused; those that a file or a variable sets for every call are not."""

from __future__ import annotations

import json

import pytest

from tests.cli.test_configuration import files  # noqa: F401
from tests.helpers.commands import one_line

SHORT = ("--raw", "--max-new-tokens", 2)


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("generate", ("--field", "x"), "--field goes with --input"),
        ("generate", ("--batch", 2), "--batch goes with --input"),
        ("generate", ("--logprobs", 2), "--logprobs needs --json"),
        ("generate", ("--temperature", 0, "--min-p", 0.1), "--min-p is for sampling, and here the most likely token"),
        ("generate", ("--seed", 1), "--seed is for sampling, and here the most likely token"),
        ("generate", ("--num-beams", 2, "--seed", 1), "--seed is for sampling, and here the most likely token"),
        ("generate", ("--top-k", 1, "--temperature", 2), "--temperature has no effect with --top-k 1"),
        ("generate", ("--early-stopping", "true"), "--early-stopping is for beam search"),
        ("generate", ("--length-penalty", 2), "--length-penalty is for beam search"),
        ("embed", ("--field", "x"), "--field is for files, and the texts are arguments"),
        ("similarity", ("more", "--fields", "x,y"), "--fields is for files, and the texts are arguments"),
        ("search", ("--query-field", "x", "--file", __file__), "--query-field needs --queries"),
    ],
)
def test_an_option_without_effect_is_refused(call, float_bundle, sentence_bundle, command, options, message):
    options = (*SHORT, *options) if command == "generate" else options
    code, out, err = call(command, float_bundle if command == "generate" else sentence_bundle, "a", *options)
    assert (code, out) == (2, "")
    assert one_line(err).startswith(f"error: {message}")


def test_options_that_change_something_are_not(call, float_bundle):
    for options in (("--temperature", 2, "--seed", 1), ("--num-beams", 2, "--early-stopping", "true"), ("--top-k", 1)):
        assert call("generate", float_bundle, "a", *SHORT, *options)[0] == 0
    assert call("generate", float_bundle, "a", *SHORT, "--temperature", 0, "--top-p", 1, "--seed", 1)[0] == 0


def test_sizes_that_a_model_is_not_given(call, float_bundle, sentence_bundle, tmp_path):
    (tmp_path / "a.txt").write_text("a b c")
    for bundle, options, message in (
        (float_bundle, ("--batch", 3), "--batch does not apply to what this model is given"),
        (sentence_bundle, ("--new-tokens", 3), "--new-tokens does not apply to what this model is given"),
        (sentence_bundle, ("--file", tmp_path / "a.txt", "--tokens", 3), "--tokens is the length of a made-up text"),
    ):
        code, out, err = call("bench", bundle, *options)
        assert (code, out) == (2, "")
        assert one_line(err).startswith(f"error: {message}")
    assert "--provider is for bundles, and none is named" in one_line(call("doctor", "--provider", "cpu")[2])


def test_a_history_is_of_typed_lines(type_in, float_bundle, tmp_path):
    code, out, err = type_in("chat", float_bundle, "--history", tmp_path / "history")
    assert (code, out) == (2, "")
    assert one_line(err).startswith("error: --history keeps the lines that are typed on a terminal")


def test_what_a_file_sets_for_every_call_may_have_no_effect(files, call, float_bundle, sentence_bundle, monkeypatch):  # noqa: F811
    answer = ("generate", float_bundle, "a", *SHORT, "--temperature", 0)
    expected = call(*answer)[1]
    files(
        user="""
            [generate]
            seed = 3
            top-k = 5
            field = "question"
            batch = 4
            logprobs = 1
            length-penalty = 2.0
            [embed]
            field = "question"
            [search]
            query-field = "question"
            [bench]
            batch = 3
            new-tokens = 1
            runs = 1
        """
    )
    assert call(*answer) == (0, expected, "")
    monkeypatch.setenv("TRIFORM_GENERATE_EARLY_STOPPING", "true")
    assert call(*answer) == (0, expected, "")
    code, out, _ = call("embed", sentence_bundle, "a")
    assert (code, len(json.loads(out)["embedding"])) == (0, 48)
    assert call("bench", float_bundle, "--tokens", 3)[0] == 0
    # What is typed for this call is refused as ever.
    code, out, err = call(*answer, "--top-p", 0.5)
    assert (code, out) == (2, "")
    assert one_line(err).startswith("error: --top-p is for sampling")
