"""What a conversation keeps of turns that end, stop, fail or begin anew, on a stand-in that answers in pieces."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from triform.runtime.decoder.conversation import Conversation
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.generation.options.generation import GenerationOptions

USER, SAID = {"role": "user", "content": "a"}, {"role": "assistant", "content": "xyz"}
RULES = {"role": "system", "content": "Be brief."}


class Model:
    """Answers "xyz" letter by letter; fails after some of them if it is told to."""

    def __init__(self, pieces="xyz", fails_after=None):
        self.manifest = SimpleNamespace(tokenizer=SimpleNamespace(has_chat_template=True))
        self.pieces, self.fails_after, self.asked, self.closed = pieces, fails_after, [], 0

    def stream(self, messages, options, **prompt):
        self.asked.append((messages, options, prompt))
        return self._stream()

    def _stream(self):
        try:
            for place, text in enumerate(self.pieces):
                if place == self.fails_after:
                    raise RuntimeError("no")
                last = place == len(self.pieces) - 1
                yield SimpleNamespace(text=text, finish_reason="stop" if last else None)
        finally:
            self.closed += 1

    def stream_to(self, messages, options, *, show, **prompt):
        self.asked.append((messages, options, prompt))
        for piece in self._stream():
            show(piece.text)
        return "generation"


def talk(*messages, model=None, **options):
    chat = Conversation(model or Model(), **options)
    chat.restore([*chat.messages, *messages])
    return chat


def test_a_turn_is_added_with_its_last_piece():
    chat = talk(system="Be brief.")
    pieces = chat.stream("a")
    assert [next(pieces).text, next(pieces).text] == ["x", "y"] and chat._messages == [RULES]
    assert next(pieces).finish_reason == "stop" and chat._messages == [RULES, USER, SAID]
    assert list(pieces) == [] and chat.messages == [RULES, USER, SAID]
    # The next turn has all of them.
    chat.send("b")
    assert chat._model.asked[1][0] == [RULES, USER, SAID, {"role": "user", "content": "b"}]


@pytest.mark.parametrize(
    ("count", "kept"), [(0, []), (1, [USER, {**SAID, "content": "x"}]), (2, [USER, {**SAID, "content": "xy"}])]
)
@pytest.mark.parametrize("way", ["close", "send", "undo", "reset", "save", "restore", "system"])
def test_what_stops_an_answer(count, kept, way, tmp_path):
    """What it has said so far is kept, before anything else changes."""
    chat = talk()
    pieces = chat.stream("a")
    for _ in range(count):
        next(pieces)
    if way == "close":
        pieces.close()
        assert chat.messages == kept
    elif way == "send":
        chat.send("b")
        assert chat.messages == [*kept, {"role": "user", "content": "b"}, SAID]
    elif way == "undo" and not kept:
        with pytest.raises(InputError, match=r"^there is no turn to undo$"):
            chat.undo()
    elif way == "undo":
        assert chat.undo() == kept and chat.messages == []
    elif way == "reset":
        chat.reset()
        assert chat.messages == []
    elif way == "save":
        chat.save(tmp_path / "talk.json")
        other = talk()
        other.load(tmp_path / "talk.json")
        assert other.messages == chat.messages == kept
    elif way == "restore":
        chat.restore([USER])
        assert chat.messages == [USER]
    else:
        chat.system = "Be brief."
        assert chat.messages == [RULES, *kept]
    # It was closed, if it had begun, and says no more.
    assert list(pieces) == [] and chat._model.closed == (count > 0) + (way == "send")


@pytest.mark.parametrize(("fails_after", "kept"), [(0, []), (2, [USER, {**SAID, "content": "xy"}])])
def test_an_answer_that_fails(fails_after, kept):
    chat = talk(model=Model(fails_after=fails_after))
    with pytest.raises(RuntimeError):
        list(chat.stream("a"))
    assert chat.messages == kept
    with pytest.raises(RuntimeError):
        chat.send("a")
    assert chat.messages == kept * 2


def test_an_answer_of_nothing():
    """Where it ended by itself it is a turn; where it was stopped it is none."""
    ended = talk(model=Model(pieces=[""]))
    list(ended.stream("a"))
    assert ended.messages == [USER, {**SAID, "content": ""}]
    stopped = talk(model=Model(pieces=["", "", "x"]))
    pieces = stopped.stream("a")
    next(pieces)
    pieces.close()
    assert stopped.messages == []


def test_whoever_is_shown_an_answer_may_end_it():
    chat, seen = talk(), []

    def show(text):
        if text == "y":
            raise KeyboardInterrupt
        seen.append(text)

    with pytest.raises(KeyboardInterrupt):
        chat.stream_to("a", show=show)
    # The piece that was not shown is not kept.
    assert seen == ["x"] and chat.messages == [USER, {**SAID, "content": "x"}]
    assert chat.stream_to("b", show=seen.append) == "generation" and seen == ["x", *"xyz"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("w", "wxyz"),
        ([{"type": "text", "text": "w"}], [{"type": "text", "text": "w"}, {"type": "text", "text": "xyz"}]),
    ],
)
def test_an_answer_that_was_begun_goes_on(content, expected):
    chat = talk()
    begun = {"role": "assistant", "content": content}
    chat.send([USER, begun])
    assert chat.messages == [USER, {"role": "assistant", "content": expected}] and begun["content"] == content


def test_options_and_what_accompanies_a_prompt():
    options = GenerationOptions(seed=3)
    chat = talk(options=options, tools=[{"name": "f"}], template="rag", template_vars={"x": 1})
    chat.send("a")
    list(chat.stream("b"))
    expected = {"tools": [{"name": "f"}], "template": "rag", "template_vars": {"x": 1}}
    assert [(given, prompt) for _, given, prompt in chat._model.asked] == [(options, expected)] * 2
    plain = talk()
    plain.send("a")
    list(plain.stream("b"))
    assert [given for _, given, _ in plain._model.asked] == [GenerationOptions(), None]


def test_undo_removes_from_the_last_message_of_the_user_on():
    tool = {"role": "tool", "content": "1"}
    chat = talk(USER, SAID, {"role": "user", "content": "b"}, SAID, tool, SAID, system="Be brief.")
    assert chat.undo() == [{"role": "user", "content": "b"}, SAID, tool, SAID]
    assert chat.undo() == [USER, SAID] and chat.messages == [RULES]
    with pytest.raises(InputError, match=r"^there is no turn to undo$"):
        chat.undo()


def test_the_system_message():
    chat = talk(USER, SAID)
    assert chat.system is None
    chat.system = ""
    assert chat.system == "" and chat.messages == [{"role": "system", "content": ""}, USER, SAID]
    chat.system = "Be brief."
    assert chat.messages == [RULES, USER, SAID]
    chat.reset()
    assert chat.messages == [RULES] and chat.system == "Be brief."
    chat.system = None
    assert chat.messages == [] and chat.system is None
    chat.restore([{"role": "system", "content": [{"type": "text", "text": "a"}]}, USER])
    assert chat.system is None
    with pytest.raises(InputError, match=r"^a system message must be a text, not 1$"):
        chat.system = 1


def test_histories_are_copies():
    chat = talk(USER)
    chat.messages[0]["content"] = "changed"
    given = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    chat.restore(given)
    given[0]["content"][0]["text"] = "changed"
    assert chat.messages == [{"role": "user", "content": [{"type": "text", "text": "a"}]}]


@pytest.mark.parametrize(
    ("prompt", "said"),
    [("", "the message is empty"), (" \n", "the message is empty"), ([], "there are no messages"),
     (["text"], "message 1 is not an object with a string 'role'"),
     ([USER, {"role": "user"}], "message 2 has no content")],
)  # fmt: skip
def test_prompts_that_are_refused(prompt, said):
    chat = talk(USER)
    for ask in (chat.send, chat.stream):
        with pytest.raises(InputError) as caught:
            ask(prompt)
        assert str(caught.value) == said
    assert chat.messages == [USER] and chat._model.asked == []


@pytest.mark.parametrize("tokenizer", [None, SimpleNamespace(has_chat_template=False)])
def test_a_model_without_a_template(tokenizer):
    model = Model()
    model.manifest.tokenizer = tokenizer
    with pytest.raises(UnsupportedError, match=r"^a conversation needs a chat template and this bundle has none; use"):
        Conversation(model)
