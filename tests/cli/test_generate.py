"""`triform generate` from the outside: exit codes, streams, bad input."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

import triform
from triform.runtime.generation.options.generation import GenerationOptions

PROMPT = "The ferry left the harbor"


def one_line(err):
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def test_prints_what_the_library_generates(call, float_bundle):
    code, out, err = call("generate", float_bundle, PROMPT, "--max-new-tokens", 12, "--temperature", 0)
    expected = triform.load(float_bundle).generate(PROMPT, GenerationOptions(max_new_tokens=12, temperature=0))
    assert (code, out, err) == (0, expected.text + "\n", "")


def test_json_has_everything(call, float_bundle):
    code, out, _ = call("generate", float_bundle, PROMPT, "--max-new-tokens", 3, "--temperature", 0, "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found) == {
        "text", "token_ids", "finish_reason", "prompt_tokens", "timings", "cached_tokens", "proposed_tokens",
        "accepted_tokens",
    }  # fmt: skip
    assert set(found["timings"]) == {"load", "prefill", "tokens"}
    assert len(found["token_ids"]) <= 3


def test_an_answer_of_a_form_that_was_cut_is_noted(call, float_bundle):
    code, out, err = call("generate", float_bundle, "the", "--raw", "--regex", "x{40}", "--max-new-tokens", "2")
    assert code == 0
    assert out.strip() in ["x" * count for count in range(2, 40)]
    assert err == "note: cut after 2 tokens, so it may not be whole as --regex asks; raise --max-new-tokens\n"
    assert call("generate", float_bundle, "the", "--raw", "--max-new-tokens", "2")[2] == ""
    assert call("generate", float_bundle, "the", "--raw", "--regex", "x{3}", "--max-new-tokens", "9")[2] == ""


def test_stats_go_to_stderr(call, float_bundle):
    _, out, err = call("generate", float_bundle, PROMPT, "--max-new-tokens", 3, "--stats")
    assert "tokens/s" in err
    assert "tokens/s" not in out


def test_a_prompt_cache_changes_the_time_alone(call, float_bundle, tmp_path):
    file = tmp_path / "rules.cache"
    arguments = ("generate", float_bundle, "--system", "Be brief. " * 20, "--max-new-tokens", 5, "--temperature", 0)
    plain = json.loads(call(*arguments, PROMPT, "--json")[1])
    found = []
    for prompt in (PROMPT, PROMPT, "Another", "word " * 120):
        code, out, err = call(*arguments, prompt, "--json", "--prompt-cache", file)
        assert (code, err) == (0, "")
        found.append((json.loads(out), file.read_bytes()))
    assert [one["token_ids"] for one, _ in found[:2]] == [plain["token_ids"]] * 2
    assert found[0][0]["cached_tokens"] == 0
    # All but the last one or two: a prompt is continued after an even number of tokens.
    assert found[1][0]["cached_tokens"] == (plain["prompt_tokens"] - 2) // 2 * 2
    # It is written again only where it knew less than half of the prompt.
    assert found[0][1] == found[1][1] == found[2][1] != found[3][1]
    file.write_bytes(b"x")
    code, out, err = call(*arguments, PROMPT, "--prompt-cache", file)
    assert (code, out) == (2, "")
    assert "rules.cache is damaged" in one_line(err)


def test_a_prompt_cache_that_can_only_be_read(call, float_bundle, tmp_path, monkeypatch):
    """As in a folder that is mounted so; it was found out when the answer had been printed."""
    file = tmp_path / "rules.cache"
    arguments = ("generate", float_bundle, PROMPT, "--max-new-tokens", 2, "--prompt-cache", file)
    expected = call(*arguments)
    before = file.read_bytes()

    def refuse(path):
        raise PermissionError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", lambda path, *arguments: refuse(path))
    note = f"note: {file} cannot be written: Read-only file system; it is read but not updated\n"
    # A prompt that it does not cover would have it written again.
    for prompt in (PROMPT, "word " * 100):
        code, _, err = call(*arguments[:2], prompt, *arguments[3:])
        assert (code, err) == (0, note)
    assert call(*arguments)[1] == expected[1]
    assert file.read_bytes() == before


@pytest.mark.parametrize("argument", [[], ["-"]])
def test_reads_standard_input(call, float_bundle, monkeypatch, argument):
    expected = call("generate", float_bundle, PROMPT, "--max-new-tokens", 5, "--temperature", 0)
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT))
    assert call("generate", float_bundle, *argument, "--max-new-tokens", 5, "--temperature", 0) == expected


def test_reads_a_file(call, float_bundle, tmp_path):
    (tmp_path / "prompt.txt").write_text(PROMPT)
    expected = call("generate", float_bundle, PROMPT, "--max-new-tokens", 5, "--temperature", 0)
    file = tmp_path / "prompt.txt"
    assert call("generate", float_bundle, "--file", file, "--max-new-tokens", 5, "--temperature", 0) == expected


def tokens(bundle, text):
    """Length of a text in the bundle's tokens, by the tokenizer itself."""
    return len(Tokenizer.from_file(str(bundle / "tokenizer.json")).encode(text, add_special_tokens=False).ids)


@pytest.mark.parametrize(
    ("arguments", "rendered"),
    [
        ([], f"<|user|>{PROMPT}<|end|><|assistant|>"),
        (["--system", "Be brief."], f"<|system|>Be brief.<|end|><|user|>{PROMPT}<|end|><|assistant|>"),
        (["--raw"], PROMPT),
    ],
)
def test_what_the_model_reads(call, float_bundle, arguments, rendered):
    """The tiny checkpoint's chat template, written out by hand."""
    _, out, _ = call("generate", float_bundle, PROMPT, "--max-new-tokens", 1, "--json", *arguments)
    assert json.loads(out)["prompt_tokens"] == tokens(float_bundle, rendered)


def test_the_default_bundle(call, float_bundle, monkeypatch, tmp_path):
    short = ("--max-new-tokens", 5, "--temperature", 0)
    expected = call("generate", float_bundle, PROMPT, *short)
    monkeypatch.setenv("TRIFORM_BUNDLE", str(float_bundle))
    assert call("generate", PROMPT, *short) == expected
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT))
    assert call("generate", *short) == expected
    (tmp_path / "prompt.txt").write_text(PROMPT)
    assert call("generate", "--file", tmp_path / "prompt.txt", *short) == expected
    # A bundle that is named wins, with a prompt and without.
    monkeypatch.setenv("TRIFORM_BUNDLE", "/nowhere")
    assert call("generate", float_bundle, PROMPT, *short) == expected
    assert call("generate", float_bundle, "--file", tmp_path / "prompt.txt", *short) == expected
    code, _, err = call("generate", PROMPT)
    assert code == 1
    assert "/nowhere does not exist" in one_line(err)


def test_the_default_bundle_makes_a_bare_command_whole(call, float_bundle, monkeypatch):
    monkeypatch.setenv("TRIFORM_BUNDLE", str(float_bundle))
    monkeypatch.setattr(sys, "stdin", io.StringIO(PROMPT))
    for command in ("generate", "inspect", "verify"):
        code, out, err = call(command)
        assert (code, err) == (0, "")
        assert "Usage" not in out


def test_a_prompt_is_taken_as_it_is_written(call, float_bundle, monkeypatch):
    """Also where it looks like a path that could be shortened, or is longer than any path."""
    monkeypatch.setenv("TRIFORM_BUNDLE", str(float_bundle))
    for prompt in ("1 // 2 /./ 3/", "word " * 100):
        _, out, _ = call("generate", prompt, "--raw", "--max-new-tokens", 1, "--json")
        assert json.loads(out)["prompt_tokens"] == tokens(float_bundle, prompt)


def test_no_bundle_at_all(call):
    code, out, err = call("generate", "--seed", 1)
    assert (code, out) == (2, "")
    assert "set TRIFORM_BUNDLE" in one_line(err)
    for command in ("generate", "inspect", "verify", "export"):
        code, out, err = call(command)
        assert (code, out) == (2, "")
        assert f"triform {command} " in err


def test_the_same_seed_gives_the_same_text(call, float_bundle):
    arguments = ("generate", float_bundle, PROMPT, "--max-new-tokens", 12, "--temperature", 2, "--seed")
    assert call(*arguments, 5) == call(*arguments, 5)
    assert call(*arguments, 5) != call(*arguments, 6)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--max-new-tokens", "0"], "--max-new-tokens must be at least 1"),
        (["--max-new-tokens", "-4"], "--max-new-tokens must be at least 1"),
        (["--temperature", "-1"], "--temperature must be 0 or more"),
        (["--temperature", "nan"], "--temperature must be a finite number"),
        (["--top-p", "nan"], "--top-p must be a finite number"),
        (["--top-k", "many"], "Invalid value for '--top-k'"),
        (["--threads", "0"], "--threads must be between 1 and 1024"),
        (["--provider-option", "x"], "KEY=VALUE"),
        (["--bogus"], "--bogus"),
        (["--speculate", "on"], "--speculate must be auto, lookup or off, not 'on'"),
        (["--keep", "5"], "--keep needs --on-overflow shift"),
        (["--on-overflow", "shift"], "give --max-new-tokens too"),
        (
            ["--on-overflow", "shift", "--keep", "640", "--max-new-tokens", "4"],
            "leaves no room in the model's context of 640",
        ),
        (["--file", "nowhere.txt"], "not both"),
    ],
)
def test_bad_options_are_usage_errors(call, float_bundle, arguments, text):
    code, out, err = call("generate", float_bundle, PROMPT, *arguments)
    assert (code, out) == (2, "")
    assert text in one_line(err)


def test_a_missing_prompt_file(call, float_bundle):
    code, _, err = call("generate", float_bundle, "--file", "nowhere.txt")
    assert code == 2
    assert "nowhere.txt cannot be read" in one_line(err)


def test_no_prompt_at_all(call, float_bundle, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    code, _, err = call("generate", float_bundle)
    assert code == 2
    assert "no prompt" in one_line(err)


@pytest.mark.parametrize("raw", [[], ["--raw"]])
def test_an_empty_prompt(call, float_bundle, raw):
    code, _, err = call("generate", float_bundle, "", *raw)
    assert code == 2
    assert "the prompt is empty" in one_line(err)


def test_a_prompt_beyond_the_context(call, float_bundle):
    code, _, err = call("generate", float_bundle, "word " * 2000)
    assert code == 2
    assert "context is 640" in one_line(err)
    shift = ("--on-overflow", "shift", "--keep", 3, "--max-new-tokens", 4, "--json")
    code, out, _ = call("generate", float_bundle, "word " * 2000, *shift)
    assert (code, json.loads(out)["prompt_tokens"] > 640) == (0, True)


def test_an_absent_provider(call, float_bundle):
    code, _, err = call("generate", float_bundle, PROMPT, "--provider", "tensorrt")
    assert code == 1
    assert "provider tensorrt is not available" in one_line(err)


def test_the_unexpected_is_one_line_too(call, float_bundle, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("first\nsecond")

    monkeypatch.setattr("triform.runtime.opening.load_decoder", broken)
    code, out, err = call("generate", float_bundle, PROMPT)
    assert (code, out) == (1, "")
    assert err == "internal error: ZeroDivisionError: first; run with TRIFORM_DEBUG=1 for the traceback\n"
    monkeypatch.setenv("TRIFORM_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        call("generate", float_bundle, PROMPT)


def test_unknown_command_and_no_arguments(call):
    code, _, err = call("generat")
    assert code == 2
    assert "generat" in one_line(err)
    code, out, err = call()
    assert (code, out) == (2, "")
    assert "triform export" in err


def test_version_and_help(call):
    assert call("--version") == (0, f"triform {triform.__version__}\n", "")
    code, out, _ = call("--help")
    assert code == 0
    assert all(name in out for name in ("export", "generate", "inspect", "verify", "--install-completion"))
    for name in ("export", "generate", "inspect", "verify"):
        code, out, _ = call(name, "--help")
        assert code == 0
        assert f"triform {name} " in out


def hear_ctrl_c():
    """A test run started in the background ignores Ctrl-C, and its children would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(*arguments, **options):
    command = [sys.executable, "-m", "triform", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=hear_ctrl_c, **options)


def test_ctrl_c_keeps_what_was_printed(float_bundle, tmp_path):
    """Random weights at a high temperature seldom end by themselves, so there is time to interrupt."""
    for seed in range(5):
        process = start("generate", float_bundle, "a", "--raw", "--temperature", 3, "--seed", seed)
        seen = process.stdout.read(20)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=30)
        if process.returncode == 130:
            assert len(seen) == 20
            assert b"Traceback" not in err
            assert (seen + rest).endswith(b"\n")
            return
    pytest.fail("no generation lasted long enough to be interrupted")


def test_a_reader_that_leaves_is_no_error(float_bundle):
    process = start("generate", float_bundle, "a", "--raw", "--temperature", 3, "--seed", 1)
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=30) == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [("triform gen", "generate"), ("triform generate --temper", "--temperature"), ("triform verify --ag", "--against")],
)
def test_the_shell_completes(words, expected):
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_TRIFORM_COMPLETE": "complete_bash"}
    command = [sys.executable, "-m", "triform"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True)
    assert done.stdout.split() == [expected]
