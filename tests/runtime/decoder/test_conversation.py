"""Conversations, against a fresh decoder that reads everything at once."""

from __future__ import annotations

import json

import pytest

import triform
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.errors import ContextError, InputError
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.text.tokenizer import bundle_tokenizer

QUESTIONS = ("How deep is the sea near the old harbor?", "And who keeps the light?", "Since when?")
GREEDY = GenerationOptions(max_new_tokens=16, temperature=0)
RULES = "You are the keeper of a small lighthouse."


@pytest.fixture(scope="module")
def model(float_bundle):
    return triform.load(float_bundle)


@pytest.fixture
def talk(model):
    model.forget()
    return triform.Conversation(model, system=RULES, options=GREEDY)


def said(role, content):
    return {"role": role, "content": content}


def test_each_turn_is_what_a_fresh_decoder_says_of_all_messages(talk, float_bundle):
    messages = [said("system", RULES)]
    for question in QUESTIONS:
        messages.append(said("user", question))
        expected = triform.load(float_bundle).generate(messages, GREEDY)
        found = talk.send(question)
        assert (found.token_ids, found.prompt_tokens) == (expected.token_ids, expected.prompt_tokens)
        messages.append(said("assistant", expected.text))
        assert talk.messages == messages


def test_a_turn_runs_only_what_is_new(talk, float_bundle, fed):
    """What it has in common with the tokens that were run, counted by the tokenizer and the template written out."""
    tokenizer = bundle_tokenizer(open_bundle(float_bundle))
    run = []
    for question in QUESTIONS:
        fed.clear()
        text = "".join(f"<|{one['role']}|>{one['content']}<|end|>" for one in talk.messages)
        ids = tokenizer.encode(f"{text}<|user|>{question}<|end|><|assistant|>", add_special_tokens=False).ids
        common = next((place for place, (a, b) in enumerate(zip(run, ids, strict=False)) if a != b), len(run))
        found = talk.send(question)
        assert found.prompt_tokens == len(ids)
        # The system message and the earlier turns' questions at least, whatever the answers' spelling.
        assert common >= found.cached_tokens > common - 3
        assert fed[0] == len(ids) - found.cached_tokens
        run = [*ids, *found.token_ids[:-1]]
    assert common > len(tokenizer.encode(RULES + QUESTIONS[0] + QUESTIONS[1]).ids)


def test_undo_reset_and_system(talk, model, float_bundle):
    first, second = (talk.send(one) for one in QUESTIONS[:2])
    assert [one["role"] for one in talk.undo()] == ["user", "assistant"]
    assert talk.messages == [said("system", RULES), said("user", QUESTIONS[0]), said("assistant", first.text)]
    assert talk.send(QUESTIONS[1]).token_ids == second.token_ids
    talk.reset()
    assert talk.messages == [said("system", RULES)]
    with pytest.raises(InputError, match="no turn to undo"):
        talk.undo()
    talk.system = "Be brief."
    talk.send(QUESTIONS[0])
    talk.system = None
    assert [one["role"] for one in talk.messages] == ["user", "assistant"]
    assert talk.system is None
    expected = triform.load(float_bundle).generate([*talk.messages, said("user", "Hm?")], GREEDY)
    assert talk.send("Hm?").token_ids == expected.token_ids
    with pytest.raises(InputError, match="system message must be a text"):
        talk.system = 5
    # What is handed out is a copy.
    talk.messages[0]["content"] = "x"
    assert talk.messages[0]["content"] == QUESTIONS[0]


def test_a_stream_is_added_when_it_ends_or_is_stopped(talk):
    whole = talk.send(QUESTIONS[0]).text
    talk.undo()
    assert "".join(piece.text for piece in talk.stream(QUESTIONS[0])) == whole
    assert talk.messages[-1] == said("assistant", whole)
    talk.undo()
    stream = talk.stream(QUESTIONS[0])
    begun = "".join(next(stream).text for _ in range(5))
    assert whole.startswith(begun)
    assert begun != whole
    stream.close()
    assert talk.messages[1:] == [said("user", QUESTIONS[0]), said("assistant", begun)]
    talk.undo()
    # Left without closing it, and stopped by the next turn.
    for piece in talk.stream(QUESTIONS[0]):
        begun = piece.text
        if begun:
            break
    assert talk.messages[-1] == said("assistant", begun)
    open_stream = talk.stream(QUESTIONS[1])
    begun = "".join(next(open_stream).text for _ in range(5))
    talk.send(QUESTIONS[2])
    assert talk.messages[-3:-1] == [said("assistant", begun), said("user", QUESTIONS[2])]
    # One that nobody asked for pieces leaves nothing.
    before = talk.messages
    talk.stream(QUESTIONS[0])
    assert talk.messages == before


def test_what_stops_an_answer_leaves_what_was_said(talk, monkeypatch):
    whole = talk.send(QUESTIONS[0]).text
    talk.undo()
    heard = []

    def interrupted(text):
        if len(heard) == 6:
            raise KeyboardInterrupt
        heard.append(text)

    with pytest.raises(KeyboardInterrupt):
        talk.stream_to(QUESTIONS[0], show=interrupted)
    assert talk.messages[-1] == said("assistant", "".join(heard))
    assert whole.startswith("".join(heard))
    talk.undo()
    # Before anything was said, and while the model runs.
    heard[:] = [""] * 6
    before = talk.messages
    with pytest.raises(KeyboardInterrupt):
        talk.stream_to(QUESTIONS[0], show=interrupted)
    assert talk.messages == before

    def breaks(session, binding):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("triform.runtime.graphs.decoding.step.run_step", breaks)
        with pytest.raises(KeyboardInterrupt):
            talk.send(QUESTIONS[0])
    assert talk.messages == before
    assert talk.send(QUESTIONS[0]).text == whole


def test_a_conversation_that_is_too_long(model):
    talk = triform.Conversation(model, options=GREEDY)
    talk.send(QUESTIONS[0])
    before = talk.messages
    with pytest.raises(ContextError, match="this model's context is 640"):
        talk.send("word " * 700)
    with pytest.raises(ContextError, match="this model's context is 640"):
        talk.stream("word " * 700)
    assert talk.messages == before
    talk.options = GenerationOptions(max_new_tokens=4, temperature=0, on_overflow="shift")
    assert talk.send("word " * 700).prompt_tokens > 640
    assert len(talk.messages) == len(before) + 2


def test_files(talk, model, tmp_path):
    talk.send('Wie tief? 🌊\n"Sehr"')
    file = tmp_path / "talk.json"
    talk.save(file)
    assert json.loads(file.read_text("utf-8")) == {"messages": talk.messages}
    assert [one.name for one in tmp_path.iterdir()] == ["talk.json"]
    other = triform.Conversation(model, options=GREEDY)
    other.load(file)
    assert (other.messages, other.system) == (talk.messages, RULES)
    assert other.send(QUESTIONS[1]).token_ids == talk.send(QUESTIONS[1]).token_ids
    with pytest.raises(InputError, match="cannot be written"):
        talk.save(tmp_path)
    with pytest.raises(InputError, match="nowhere/x cannot be written"):
        talk.save(tmp_path / "nowhere" / "x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b'{"messages": [{"role": "us', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100000, "not JSON"),
        (b"[]", 'a list "messages"'),
        (b'{"messages": {}}', 'a list "messages"'),
        (b'{"messages": ["Hi"]}', "message 1 is not an object"),
        (b'{"messages": [{"role": "user", "content": "Hi"}, {"content": "Hi"}]}', "message 2 is not an object"),
        (b'{"messages": [{"role": 1, "content": "Hi"}]}', "message 1 is not an object"),
        (b'{"messages": [{"role": "user"}]}', "message 1 has no content"),
        (b'{"messages": [{"role": "user", "content": 5}]}', "message 1 has no content"),
        (b'{"messages": [{"role": "user", "content": "\\ud800"}]}', "message 1 is not valid Unicode"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(talk, tmp_path, data, message):
    file = tmp_path / "talk.json"
    file.write_bytes(data)
    before = talk.messages
    with pytest.raises(InputError, match=r"talk\.json is (damaged|not a conversation)") as caught:
        talk.load(file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert talk.messages == before
    with pytest.raises(InputError, match="nowhere cannot be read"):
        talk.load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "the message is empty"),
        (" \n", "the message is empty"),
        ("\udcff", "not valid Unicode"),
        ([], "there are no messages"),
        (["Hi"], "message 1 is not an object"),
        ([{"role": "tool"}], "message 1 has no content"),
        ([{"role": "user", "content": "a", "more": {1, 2}}], "message 1 is not JSON"),
    ],
)
def test_bad_prompts(talk, prompt, message):
    before = talk.messages
    for ask in (talk.send, talk.stream):
        with pytest.raises(InputError, match=message):
            ask(prompt)
    assert talk.messages == before
