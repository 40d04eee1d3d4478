"""`triform generate --input`, and its searches, from the outside."""

from __future__ import annotations

import json

import pytest

import triform
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions

PROMPTS = ["The ferry left the harbor", "Snow", "A letter  from far away"]
GREEDY = ("--max-new-tokens", 8, "--temperature", 0)
OPTIONS = GenerationOptions(max_new_tokens=8, temperature=0)


@pytest.fixture(scope="module")
def model(float_bundle):
    return triform.load(float_bundle)


@pytest.fixture
def lines(tmp_path):
    file = tmp_path / "prompts.jsonl"
    objects = [{"id": index, "prompt": prompt} for index, prompt in enumerate(PROMPTS)]
    turns = [("user", "Hello"), ("assistant", "Yes?"), ("user", "Bye")]
    objects.append({"id": 3, "messages": [{"role": role, "content": content} for role, content in turns]})
    file.write_text("".join(json.dumps(one) + "\n" for one in objects))
    return file, objects


def one_line(err):
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("batch", [1, 3])
def test_each_line_is_answered_as_it_is_alone(call, model, float_bundle, lines, tmp_path, batch):
    file, objects = lines
    output = tmp_path / "answers.jsonl"
    code, out, err = call("generate", float_bundle, "--input", file, *GREEDY, "--batch", batch, "--output", output)
    assert (code, out, err) == (0, "", "")
    found = [json.loads(line) for line in output.read_text().splitlines()]
    for one, asked in zip(found, objects, strict=True):
        answer = model.generate(asked.get("prompt") or asked["messages"], OPTIONS)
        more = {
            "generated_text": answer.text,
            "finish_reason": answer.finish_reason,
            "generated_tokens": len(answer.token_ids),
        }
        assert one == asked | more
    assert not list(tmp_path.glob("*.part"))


def test_plain_lines_and_standard_output(call, model, float_bundle, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("".join(prompt + "\n" for prompt in PROMPTS))
    code, out, err = call("generate", float_bundle, "--input", file, *GREEDY, "--raw", "--stats")
    assert code == 0
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["prompt"] for one in found] == PROMPTS
    assert [one["generated_text"] for one in found] == [model.generate(one, OPTIONS, raw=True).text for one in PROMPTS]
    assert err.startswith("3 prompts, ") and "tokens/s" in err


def test_a_field_of_ones_own_and_a_system_message(call, model, float_bundle, tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_text('{"question": "Snow"}\n')
    asked = ("generate", float_bundle, "--input", file, "--field", "question", "--system", "Be brief.", *GREEDY)
    (found,) = map(json.loads, call(*asked)[1].splitlines())
    assert found["generated_text"] == model.generate("Snow", OPTIONS, system="Be brief.").text


def test_bad_lines(call, float_bundle, tmp_path):
    file, output = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    file.write_text(
        f'{{"prompt": "Snow"}}\nnot json\n{{"prompt": ""}}\n{{"prompt": "{"word " * 2000}"}}\n{{"prompt": "Rain"}}\n'
    )
    code, _, err = call("generate", float_bundle, "--input", file, *GREEDY, "--batch", 1, "--output", output)
    # What was answered is kept, under a name that says it is not all.
    assert code == 2
    assert "line 2 of" in err and "is not JSON" in err
    assert not output.exists()
    part = tmp_path / "out.jsonl.part"
    assert [json.loads(line)["prompt"] for line in part.read_text().splitlines()] == ["Snow"]
    assert str(part) in err
    again = ("generate", float_bundle, "--input", file, *GREEDY, "--skip-errors", "--output", output)
    # Nothing that was answered is thrown away in silence.
    code, _, err = call(*again)
    assert code == 2
    assert "continue it with --resume" in one_line(err)
    code, _, err = call(*again, "--resume")
    assert code == 0
    assert not part.exists()
    assert [json.loads(line)["prompt"] for line in output.read_text().splitlines()] == ["Snow", "Rain"]
    assert err.startswith(f"note: skipped 2 inputs that could not be used; the first is line 2 of {file}: it is not")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("a prompt",), "give a prompt or --input, not both"),
        (("--prompt-cache", "x"), "give --prompt-cache or --input, not both"),
        (("--batch", "0"), "--batch must be at least 1, not 0"),
        (("--logprobs", "1"), "--logprobs are for one answer at a time"),
        (("--best-of", "2"), "--best-of samples answers"),
    ],
)
def test_what_does_not_fit_together(call, float_bundle, lines, more, message):
    code, out, err = call("generate", float_bundle, *more, "--input", lines[0], *GREEDY)
    assert (code, out) == (2, "")
    assert message in one_line(err)


def test_the_input_is_never_written_over(call, float_bundle, lines):
    before = lines[0].read_bytes()
    code, _, err = call("generate", float_bundle, "--input", lines[0], "--output", lines[0])
    assert code == 2
    assert "it is the input" in one_line(err)
    assert lines[0].read_bytes() == before


def test_nothing_is_written_into_the_bundle(call, float_bundle, lines):
    before = (float_bundle / "manifest.json").read_bytes()
    for name in ("manifest.json", "answers.jsonl"):
        code, _, err = call("generate", float_bundle, "--input", lines[0], "--output", float_bundle / name)
        assert code == 2
        assert "it is in the folder of the bundle" in one_line(err)
    assert (float_bundle / "manifest.json").read_bytes() == before
    assert not (float_bundle / "answers.jsonl").exists()


def test_options_of_files_need_one(call, float_bundle):
    code, _, err = call("generate", float_bundle, "a", "--output", "x")
    assert code == 2
    assert one_line(err).startswith("error: --output goes with --input; a single answer goes to standard output")


def test_beams_of_one_prompt(call, model, float_bundle):
    beams = Beams(num_beams=4, num_return_sequences=2)
    (expected,) = model.generate_all(["Snow"], OPTIONS, beams=beams)
    asked = ("generate", float_bundle, "Snow", *GREEDY, "--num-beams", 4)
    assert call(*asked) == (0, expected[0].text + "\n", "")
    _, out, _ = call(*asked, "--num-return-sequences", 2)
    assert out.splitlines() == [f"{one.score:.4f}\t{' '.join(one.text.split())}" for one in expected]
    found = json.loads(call(*asked, "--num-return-sequences", 2, "--json")[1])
    assert [one["token_ids"] for one in found] == [list(one.token_ids) for one in expected]


def test_a_draft(call, float_bundle, int4_bundle, real_bundle):
    asked = ("generate", float_bundle, "Snow", *GREEDY)
    plain = call(*asked)
    assert call(*asked, "--draft", int4_bundle) == plain
    code, _, err = call(*asked, "--draft", real_bundle)
    assert code == 2
    assert "their vocabularies differ" in one_line(err)
    code, _, err = call(*asked, "--draft", int4_bundle, "--num-beams", 2)
    assert code == 2
    assert "--draft is for a single answer" in one_line(err)


def test_a_run_that_was_killed_is_resumed(call, float_bundle, int4_bundle, tmp_path):
    """The answers are those of a run that was not killed, none is computed twice, and nothing else is continued."""
    file, output = tmp_path / "a.jsonl", tmp_path / "out.jsonl"
    good = ['{"prompt": "Snow"}', '{"prompt": "Rain"}', '{"prompt": "Hail"}']
    command = ("generate", float_bundle, "--input", file, *GREEDY, "--batch", 1, "--output")
    file.write_text("\n\n".join(good))
    assert call(*command, tmp_path / "whole.jsonl")[0] == 0
    whole = (tmp_path / "whole.jsonl").read_bytes()
    file.write_text("\n".join([*good[:2], "not json"]))
    assert call(*command, output)[0] == 2
    part = tmp_path / "out.jsonl.part"
    # A kill in the middle of a write leaves a line without an end.
    part.write_bytes(part.read_bytes()[:-4])
    file.write_text("\n\n".join(good))
    for more, message in (
        (("--system", "Be brief."), "was made with another --system"),
        (("--repetition-penalty", 1.5), "was made with another --repetition-penalty"),
        (("--stop", "x"), "was made with another --stop"),
        (("--num-beams", 2), "was made with another --num-beams"),
    ):
        code, _, err = call(*command, output, "--resume", *more)
        assert (code, message in err) == (2, True), err
    code, _, err = call(*command[:1], int4_bundle, *command[2:], output, "--resume")
    assert (code, "was made with another bundle" in err) == (2, True)
    file.write_text("\n".join(['{"prompt": "Sun"}', *good[1:]]))
    code, _, err = call(*command, output, "--resume")
    assert (code, "was made from another input: record 1 differs" in err) == (2, True)
    file.write_text("\n\n".join(good))
    code, _, err = call(*command, output, "--resume", "--stats")
    assert code == 0
    assert err.startswith("note: skipped 2 blank lines\n2 prompts, ")
    assert output.read_bytes() == whole
    assert not list(tmp_path.glob("*.part*"))
