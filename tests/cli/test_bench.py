"""`triform bench`: figures of every form. Times are only compared with each other."""

from __future__ import annotations

import json

import pytest

import triform
from tests.helpers.commands import one_line


def figures(call, *arguments):
    code, out, err = call("bench", *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_a_decoder(call, float_bundle, tmp_path):
    found = figures(call, float_bundle, "--tokens", 20, "--new-tokens", 5, "--runs", 1)
    assert (found["form"], found["new_tokens"]) == ("decoder", 5)
    tokens = found["prompt_tokens"]
    assert 18 <= tokens <= 20
    first = found["first_token_latency"]
    assert found["prefill_tokens_per_second"] == pytest.approx(tokens / first["p50"])
    assert 0 < first["p50"] <= first["p90"] <= first["p99"]
    assert 0 < found["token_latency"]["p50"]
    assert found["peak_memory_bytes"] > (float_bundle / "decoder.onnx.data").stat().st_size
    (tmp_path / "prompt.txt").write_text("Some words of a file")
    tokens = triform.load_decoder(float_bundle).count_tokens("Some words of a file", raw=True)
    assert (
        figures(call, float_bundle, "--new-tokens", 2, "--runs", 1, "--file", tmp_path / "prompt.txt")["prompt_tokens"]
        == tokens
    )


def test_a_table_for_people(call, float_bundle):
    code, out, _ = call("bench", float_bundle, "--tokens", 3, "--new-tokens", 2, "--runs", 1)
    assert code == 0
    shown = dict(line.split("  ", 1) for line in out.splitlines())
    assert int(shown["prompt tokens"]) <= 3
    assert shown["peak memory"].endswith(" MB")
    assert "p50" in shown["token latency"]


@pytest.mark.parametrize("option", ["--tokens", "--new-tokens", "--batch", "--runs"])
def test_counts_are_at_least_one(call, float_bundle, option):
    code, out, err = call("bench", float_bundle, option, 0)
    assert (code, out) == (2, "")
    assert f"{option} must be at least 1, not 0" in one_line(err)


def test_a_prompt_that_is_too_long_is_refused(call, float_bundle):
    context = triform.load(float_bundle).manifest.max_length
    code, out, err = call("bench", float_bundle, "--tokens", 100_000)
    assert (code, out) == (2, "")
    assert one_line(err) == (
        f"error: --tokens 100000 and --new-tokens 64 are more than this model's context of {context}\n"
    )
    code, out, err = call("bench", float_bundle, "--new-tokens", context)
    assert (code, out) == (2, "")
    assert f"leaves no room for a prompt in a context of {context} tokens" in one_line(err)


def test_a_small_context_is_filled_as_far_as_there_is_room(call, float_bundle):
    context = triform.load(float_bundle).manifest.max_length
    found = figures(call, float_bundle, "--new-tokens", context - 9, "--runs", 1)
    assert 1 <= found["prompt_tokens"] <= 9
