"""Conversations, tools and asynchronous pieces, against a fresh decoder that reads everything at once."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading

import pytest
from transformers import PreTrainedTokenizerFast

import triform
from tests.checkpoints import byte_level_tokenizer
from tests.runtime.test_chat import CALL, CONVERSATIONS, USER, WEATHER
from triform.runtime.bundle import open_bundle
from triform.runtime.errors import ContextError, InputError, UnsupportedError
from triform.runtime.options import GenerationOptions
from triform.runtime.text import bundle_tokenizer

QUESTIONS = ("How deep is the sea near the old harbor?", "And who keeps the light?", "Since when?")
GREEDY = GenerationOptions(max_new_tokens=16, temperature=0)
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
TEMPLATE = """{% if tools %}<|system|>{% for tool in tools %}
{{ loop.index }} {{ tool | tojson }}
{% endfor %}<|end|>{% elif tools is none %}none{% endif %}
{% for m in messages %}<|{{ m.role }}|>{{ m.content }}
{% for call in m.tool_calls or [] %}{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}
{{ m.tool_call_id }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""
RULES = "You are the keeper of a small lighthouse."


@pytest.fixture(scope="module")
def model(float_bundle):
    return triform.load(float_bundle)


@pytest.fixture
def talk(model):
    model.forget()
    return triform.Conversation(model, system=RULES, options=GREEDY)


@pytest.fixture
def fed(monkeypatch):
    """How many tokens each run of the graph is fed."""
    from triform.runtime import step

    found, original = [], step.run_step

    def counted(session, binding):
        found.append(binding.input_ids.shape[1])
        original(session, binding)

    monkeypatch.setattr(step, "run_step", counted)
    return found


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
    with pytest.raises(InputError, match="no turn to take back"):
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
        patch.setattr("triform.runtime.step.run_step", breaks)
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
        (b"[]", 'a list called "messages"'),
        (b'{"messages": {}}', 'a list called "messages"'),
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
    with pytest.raises(InputError, match=r"talk\.json is (damaged|no conversation)") as caught:
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
        ([], "there is no message"),
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


def with_template(bundle, folder, template):
    """A copy of a bundle with another chat template, or none."""
    shutil.copytree(bundle, folder)
    file, manifest = folder / "chat_template.jinja", json.loads((folder / "manifest.json").read_text())
    if template is None:
        file.unlink()
        del manifest["files"][file.name]
        manifest["tokenizer"]["chat_template"] = None
    else:
        file.write_text(template, encoding="utf-8")
        manifest["files"][file.name]["size"] = file.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture(scope="module")
def caller(float_bundle, tmp_path_factory):
    """A bundle whose template tells the model of tools, and shows calls and what they gave."""
    return with_template(float_bundle, tmp_path_factory.mktemp("caller") / "bundle", TEMPLATE)


def theirs(bundle, messages, tools):
    """The prompt as transformers has it, by the same tokenizer and template."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(), bos_token="<s>", eos_token="<|end|>", pad_token="<pad>"
    )
    template = (bundle / "chat_template.jinja").read_text()
    return tokenizer.apply_chat_template(
        messages, tools=tools, chat_template=template, add_generation_prompt=True, return_dict=False
    )


@pytest.mark.parametrize("tools", [None, [], [WEATHER], [CLOCK, WEATHER]], ids=["none", "empty", "one", "two"])
@pytest.mark.parametrize("name", ["plain", "system", "call"])
def test_prompts_with_tools_equal_transformers(caller, name, tools):
    model, messages = triform.load(caller), CONVERSATIONS[name]
    expected = theirs(caller, messages, tools)
    assert model._prompts.prompt_ids(messages, system=None, raw=False, tools=tools) == expected
    one = GenerationOptions(max_new_tokens=1)
    assert model.count_tokens(messages, tools=tools) == len(expected)
    assert model.generate(messages, one, tools=tools).prompt_tokens == len(expected)
    assert model.stream_to(messages, one, tools=tools, show=str).prompt_tokens == len(expected)
    list(model.stream(messages, one, tools=tools))
    assert model._step.ids == expected
    alone = [piece.token_ids for piece in model.stream(messages, GREEDY, tools=tools)]
    (batch,) = model.generate_all([messages], GREEDY, tools=tools)
    assert batch[0].token_ids == tuple(one for ids in alone for one in ids)


def test_a_conversation_with_tools(caller):
    model = triform.load(caller)
    talk = triform.Conversation(model, options=GREEDY, tools=[WEATHER])
    talk.restore([USER, {"role": "assistant", "tool_calls": [{"type": "function", "function": CALL}]}])
    result = {"role": "tool", "content": '{"sky": "gray"}', "name": "weather"}
    prompt = [*talk.messages, result]
    # Their template would print None for the content that is not there.
    prompt[1]["content"] = ""
    talk.restore(prompt[:2])
    assert talk.send([result]).prompt_tokens == len(theirs(caller, prompt, [WEATHER]))
    assert [one["role"] for one in talk.messages] == ["user", "assistant", "tool", "assistant"]
    assert len(talk.undo()) == 4


def test_tools_that_nobody_would_learn_of(model, float_bundle, tmp_path):
    with pytest.raises(InputError, match="chat template knows of no tools"):
        model.generate("Hi", tools=[WEATHER])
    with pytest.raises(InputError, match="tools need a chat template"):
        model.generate("Hi", raw=True, tools=[WEATHER])
    with pytest.raises(InputError, match="which are objects"):
        model.generate("Hi", tools=["weather"])
    bare = triform.load(with_template(float_bundle, tmp_path / "bare", None))
    with pytest.raises(InputError, match="tools need a chat template"):
        bare.generate("Hi", tools=[WEATHER])
    with pytest.raises(UnsupportedError, match="needs a chat template and this bundle has none"):
        triform.Conversation(bare)


async def collected(stream):
    return [piece async for piece in stream]


def test_asynchronous_pieces_are_the_same(model):
    expected = list(model.stream(QUESTIONS[0], GREEDY, system=RULES))
    assert asyncio.run(collected(model.stream_async(QUESTIONS[0], GREEDY, system=RULES))) == expected
    for prompt, options in (("", None), ("word " * 700, None)):
        with pytest.raises(InputError):
            asyncio.run(collected(model.stream_async(prompt, options)))


@pytest.fixture
def gate(monkeypatch):
    """Holds every run of the model until the test lets it through: begun is set when one waits."""
    from triform.runtime import step

    class Gate:
        begun, go, ended = threading.Event(), threading.Event(), threading.Event()

    original = step.run_step

    def held(session, binding):
        assert threading.current_thread() is not threading.main_thread()
        Gate.begun.set()
        assert Gate.go.wait(30)
        original(session, binding)
        Gate.ended.set()

    monkeypatch.setattr(step, "run_step", held)
    return Gate


async def until(event):
    async with asyncio.timeout(30):
        while not event.is_set():
            await asyncio.sleep(0.001)


def test_the_event_loop_goes_on_while_the_model_runs(model, gate):
    async def main():
        task = asyncio.create_task(collected(model.stream_async(QUESTIONS[0], GREEDY)))
        # Were the loop blocked, nobody would open the gate.
        await until(gate.begun)
        gate.go.set()
        return await task

    assert asyncio.run(main())[-1].finish_reason is not None


def test_canceling_waits_for_the_run_and_leaves_the_decoder_usable(model, gate, monkeypatch):
    async def main():
        task = asyncio.create_task(collected(model.stream_async(QUESTIONS[0], GREEDY)))
        await until(gate.begun)
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
        gate.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gate.ended.is_set()

    model.forget()
    asyncio.run(main())
    monkeypatch.undo()
    assert model.generate(QUESTIONS[0], GREEDY).cached_tokens > 0
    expected = model.generate(QUESTIONS[0], GREEDY).token_ids
    model.forget()
    assert model.generate(QUESTIONS[0], GREEDY).token_ids == expected


def test_an_asynchronous_stream_that_is_closed_or_left(model, fed):
    expected = list(model.stream(QUESTIONS[0], GREEDY))
    model.forget()

    async def main():
        stream = model.stream_async(QUESTIONS[0], GREEDY)
        found = [await anext(stream) for _ in range(3)]
        await stream.aclose()
        fed.clear()
        await asyncio.sleep(0.05)
        assert fed == []
        async for piece in model.stream_async(QUESTIONS[0], GREEDY):
            found.append(piece)
            break
        return found, await collected(model.stream_async(QUESTIONS[0], GREEDY))

    found, whole = asyncio.run(main())
    assert found == [*expected[:3], expected[0]]
    assert whole == expected


def test_streams_side_by_side_meet_in_one_thread(model):
    """The one that began last goes on; the others end in one line, as without an event loop."""

    async def main():
        streams = (model.stream_async(one, GREEDY) for one in QUESTIONS)
        return await asyncio.gather(*map(collected, streams), return_exceptions=True)

    first, second, third = asyncio.run(main())
    for one in (first, second):
        assert isinstance(one, InputError)
        assert "another one with the same decoder began" in str(one)
    assert third == list(model.stream(QUESTIONS[2], GREEDY))
