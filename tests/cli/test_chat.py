"""`triform chat` from the outside, driven by lines as a script drives it, and on a terminal."""

from __future__ import annotations

import json
import re

import pytest

import triform
from tests.helpers.bundles import adopt, change, read_manifest_json
from tests.helpers.talking import FIRST, GREEDY, SECOND, SHORT, answers
from triform.cli.chat.parameters import changed_values, with_changes
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Penalties


def one_line(err):
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err


def without_notes(err):
    return "".join(line for line in err.splitlines(True) if not line.startswith("note: cut after 8 tokens"))


def test_a_message_a_line_and_answers_alone(chat, float_bundle):
    code, out, err = chat(FIRST, "", "  ", SECOND)
    assert (code, out, without_notes(err)) == (0, answers(float_bundle, FIRST, SECOND), "")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([f"{FIRST} \\", "and came\\", "back"], f"{FIRST} \nand came\nback"),
        (["so\\"], "so"),
        (['"""', FIRST, "", " /exit\\", '"""'], f"{FIRST}\n\n /exit\\"),
        (['"""', FIRST], FIRST),
        (["//exit now"], "/exit now"),
    ],
)
def test_messages_of_several_lines(chat, float_bundle, lines, message):
    code, out, err = chat(*lines)
    assert (code, out, without_notes(err)) == (0, answers(float_bundle, message), "")


def test_system_undo_reset_exit(chat, float_bundle):
    code, out, err = chat(FIRST, "/undo", SECOND, "/reset", "/system Be brief.", FIRST, "/exit", SECOND)
    expected = [answers(float_bundle, one) for one in (FIRST, SECOND)]
    assert (code, out) == (0, "".join(expected) + answers(float_bundle, FIRST, system="Be brief."))
    notes = [f"note: undone: {FIRST}\n", "note: the conversation was reset\n", "system: Be brief.\n"]
    assert without_notes(err) == "".join(notes)
    assert chat("/system -", "/system")[2] == "note: there is no system prompt\n" * 2
    system = (*SHORT, "--system", "Be brief.")
    assert chat("/system", options=system)[2] == "system: Be brief.\n"
    assert chat(FIRST, "/reset", FIRST, options=system)[1] == 2 * answers(float_bundle, FIRST, system="Be brief.")


def test_the_conversation_in_a_file(chat, float_bundle, tmp_path):
    file = tmp_path / "a talk.json"
    code, out, err = chat(FIRST, f"/save {file}", SECOND, f"/load {file}", SECOND)
    both = answers(float_bundle, FIRST, SECOND)
    first = answers(float_bundle, FIRST)
    second = both.removeprefix(first)
    assert (code, out) == (0, both + second)
    assert f"note: 2 messages saved to {file}\n" in err
    assert f"note: 2 messages loaded from {file}\n" in err
    found = json.loads(file.read_text())
    assert found == {
        "messages": [{"role": "user", "content": FIRST}, {"role": "assistant", "content": first.removesuffix("\n")}]
    }
    assert chat(SECOND, options=(*SHORT, "--load", file))[1] == second
    file.write_text('{"messages": [')
    code, out, err = chat(SECOND, options=(*SHORT, "--load", file))
    assert (code, out) == (2, "")
    assert "is damaged" in one_line(err)


def test_stats_are_given_when_they_are_wanted(chat):
    line = re.compile(
        r"read (\d+) of (\d+) tokens in [\d.]+ s, the rest from the cache; wrote \d+ tokens, [\d.]+ tokens/s"
    )
    lines = (FIRST, SECOND, "/params stats off", FIRST, "/params stats on", FIRST)
    found = line.findall(chat(*lines, options=(*SHORT, "--stats"))[2])
    assert len(found) == 3
    # What the first turn read is not read again.
    assert found[0][0] == found[0][1]
    assert int(found[1][1]) - int(found[1][0]) > int(found[0][0]) - 3
    assert line.findall(chat(FIRST)[2]) == []


def test_parameters(chat, float_bundle):
    options = GenerationOptions(max_new_tokens=5, temperature=0.7, seed=3)
    code, out, err = chat(
        "/params temperature=0.7 seed=3 --max-new-tokens=5", FIRST, "/params temperature= seed=", FIRST
    )
    first = answers(float_bundle, FIRST, options=options)
    assert code == 0
    assert out.startswith(first)
    assert "params: max_new_tokens=5 temperature=0.7 seed=3\n" in err
    assert "params: max_new_tokens=5\n" in err
    assert chat("/params", options=())[2] == "params: none, all are the model's own\n"


def test_parameters_of_every_kind():
    bare = GenerationOptions()
    options = with_changes(
        bare, "stop='a b' stop=c repetition-penalty=1.5 logit_bias=3=-2.5 order=top-k,top-p speculate=off"
    )
    assert (options.stop, options.order, options.speculate) == (("a b", "c"), ("top-k", "top-p"), "off")
    assert options.penalties == Penalties(repetition_penalty=1.5)
    assert options.constraints.logit_bias == {3: -2.5}
    more = with_changes(options, "frequency_penalty=1 stop=d speculate=")
    assert (more.stop, more.speculate) == (("d",), "auto")
    assert more.penalties == Penalties(repetition_penalty=1.5, frequency_penalty=1)
    assert (
        changed_values(more)
        == "stop=d repetition_penalty=1.5 frequency_penalty=1.0 logit_bias=3=-2.5 order=top-k,top-p"
    )
    assert with_changes(more, "stop= repetition_penalty= frequency_penalty= logit_bias= order=") == bare
    assert changed_values(bare) == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/bogus", "there is no command /bogus; /help lists them"),
        ("/", "there is no command /;"),
        ("/undo", "there is no turn to undo"),
        ("/reset now", "/reset takes no argument"),
        ("/save", "/save needs a file"),
        ("/load", "/load needs a file"),
        ("/save /nowhere/x", "/nowhere/x cannot be written"),
        ("/load /nowhere/x", "/nowhere/x cannot be read"),
        ("/load ~no-such-user/x", "/load ~no-such-user/x: "),
        ("/params bogus=1", "/params has no 'bogus'"),
        ("/params temperature", "/params must be NAME=VALUE, not 'temperature'"),
        ("/params temperature=hot", "temperature must be a number, not 'hot'"),
        ("/params top_k=1.5", "top_k must be a whole number, not '1.5'"),
        ("/params temperature=-1", "--temperature must be 0 or more"),
        ("/params temperature=nan", "--temperature must be a finite number"),
        ("/params max_new_tokens=0", "--max-new-tokens must be at least 1"),
        ("/params stop='a", "/params cannot be read"),
        ("/params json_schema=/nowhere", "/nowhere cannot be read"),
        ("/params order=bogus", "bogus"),
        ("/params stats", "/params stats must be on or off"),
        ("/params stats maybe", "/params stats must be on or off"),
        ("word " * 700, "the turn was undone: the prompt has"),
        ("\udcff", "not valid Unicode"),
    ],
)
def test_what_is_refused_is_one_line_and_the_chat_goes_on(chat, float_bundle, line, message):
    code, out, err = chat(line, FIRST)
    assert (code, out) == (1, answers(float_bundle, FIRST))
    assert message in one_line(without_notes(err))


def test_a_conversation_that_outgrows_the_context(chat, float_bundle):
    long = "word " * 250
    code, out, err = chat(long, long, FIRST)
    assert (code, out) == (1, answers(float_bundle, long, FIRST))
    assert "context is 640, answer included" in one_line(without_notes(err))
    assert "/undo or /reset frees space" in err
    shift = GenerationOptions(max_new_tokens=8, temperature=0, on_overflow="shift")
    code, out, err = chat(long, long, FIRST, options=(*SHORT, "--on-overflow", "shift"))
    assert (code, out, without_notes(err)) == (0, answers(float_bundle, long, long, FIRST, options=shift), "")


def test_an_answer_that_fills_the_context(chat):
    _, _, err = chat("word " * 200, options=("--temperature", 0, "--min-new-tokens", 600))
    assert re.fullmatch(r"note: cut after \d+ tokens, where the context is full\n", err)


def test_help_names_every_command(chat):
    code, out, err = chat("/help")
    assert (code, out) == (0, "")
    for name in ("save", "load", "reset", "system", "params", "undo", "help", "exit"):
        assert f"/{name}" in err


def test_a_model_that_fails_is_one_line(chat, float_bundle, monkeypatch):
    from triform.runtime.errors import TriformError
    from triform.runtime.graphs.decoding import step as step

    runs, original = [], step.run_step

    def fails(session, binding):
        runs.append(1)
        if len(runs) == 4:
            raise TriformError("onnxruntime failed: no more memory")
        original(session, binding)

    whole = answers(float_bundle, FIRST)
    monkeypatch.setattr(step, "run_step", fails)
    code, out, err = chat(FIRST, "/undo", FIRST)
    begun, _, rest = out.partition("\n")
    assert (code, rest) == (1, whole)
    assert whole.startswith(begun)
    assert "error: onnxruntime failed: no more memory\n" in err


def test_what_cannot_begin(type_in, float_bundle, own_bundle, monkeypatch):
    monkeypatch.setenv("TRIFORM_BUNDLE", str(float_bundle))
    assert type_in("chat", *SHORT, typed=FIRST)[1] == answers(float_bundle, FIRST)
    code, out, err = type_in("chat", "/nowhere")
    assert (code, out) == (1, "")
    assert "/nowhere does not exist" in one_line(err)
    change(own_bundle, tokenizer={**read_manifest_json(own_bundle)["tokenizer"], "chat_template": None})
    code, out, err = type_in("chat", own_bundle, typed=FIRST)
    assert (code, out) == (1, "")
    assert "needs a chat template and this bundle has none; use `triform generate`" in one_line(err)


TOOLS = [{"type": "function", "function": {"name": "clock", "parameters": {}}}]


def test_tools_of_generate(type_in, own_bundle, tmp_path):
    file = tmp_path / "tools.json"
    file.write_text(json.dumps(TOOLS))
    asked = ("generate", own_bundle, FIRST, *SHORT, "--json", "--tools", file)
    code, _, err = type_in(*asked)
    assert code == 2
    assert "chat template does not support tools" in one_line(err)
    template = (own_bundle / "chat_template.jinja").read_text()
    adopt(own_bundle, "chat_template.jinja", ("{{ tools | tojson }}" + template).encode())
    code, out, _ = type_in(*asked)
    model = triform.load(own_bundle)
    assert (code, json.loads(out)["prompt_tokens"]) == (0, model.count_tokens(FIRST, tools=TOOLS))
    plain = model.count_tokens(FIRST)
    assert model.count_tokens(FIRST, tools=TOOLS) > plain
    records = tmp_path / "prompts.jsonl"
    records.write_text(json.dumps({"prompt": FIRST}) + "\n")
    code, out, _ = type_in("generate", own_bundle, "--input", records, *SHORT, "--tools", file)
    assert json.loads(out)["generated_text"] == model.generate(FIRST, GREEDY, tools=TOOLS).text
    for data, message in (
        ("[", "is not JSON"),
        ("{}", "is not a list of objects"),
        ("[1]", "is not a list of objects"),
    ):
        file.write_text(data)
        code, _, err = type_in(*asked)
        assert code == 2
        assert message in one_line(err)
    file.unlink()
    assert "cannot be read" in one_line(type_in(*asked)[2])
