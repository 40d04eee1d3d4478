"""Files of conversations: what is written, and every form that is refused, by the number of the message."""

from __future__ import annotations

import json

import pytest

from triform.runtime.decoder.conversation_file import check_messages, read_conversation, write_conversation
from triform.runtime.errors import InputError

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "ça va?"}]},
    {"role": "assistant", "content": None, "tool_calls": [{"name": "f"}]},
    {"role": "tool", "content": ""},
    {"role": "assistant", "tool_calls": []},
]

NOT_JSON = "is damaged, or not a conversation: it is not JSON"
SECOND = "is not a conversation: message 2 has no content"
NO_MESSAGES = 'is not a conversation: it is not an object with a list "messages"'


def fails(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_conversation_comes_back(tmp_path):
    path = tmp_path / "talk.json"
    write_conversation(path, TALK)
    assert read_conversation(path) == TALK
    text = path.read_text(encoding="utf-8")
    # To be read by people, too.
    assert text.endswith("}\n") and "ça va?" in text and '\n  {\n   "role"' in text
    assert json.loads(text) == {"messages": TALK}
    write_conversation(path, ())
    assert read_conversation(path) == []


def test_what_json_cannot_hold_leaves_the_file(tmp_path):
    path = tmp_path / "talk.json"
    write_conversation(path, TALK)
    for value in ({1, 2}, "\ud800"):
        said = fails(write_conversation, path, [{"role": "user", "content": value}])
        assert said.startswith(f"{path} cannot be written: the conversation is not JSON (")
    assert read_conversation(path) == TALK
    said = fails(write_conversation, tmp_path / "no/talk.json", TALK)
    assert said == f"{tmp_path / 'no/talk.json'} cannot be written: No such file or directory"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", NOT_JSON), ("{", NOT_JSON), ("[" * 100_000, NOT_JSON),
        ("[]", NO_MESSAGES), ("{}", NO_MESSAGES), ('{"messages": {}}', NO_MESSAGES),
        ('{"messages": [{"role": "a", "content": "b"}, {"role": "a"}]}', SECOND),
    ],
)  # fmt: skip
def test_files_that_are_refused(tmp_path, content, said):
    path = tmp_path / "talk.json"
    path.write_text(content)
    assert fails(read_conversation, path) == f"{path} {said}"


def test_files_that_are_not_there(tmp_path):
    assert fails(read_conversation, tmp_path / "no") == f"{tmp_path / 'no'} cannot be read: No such file or directory"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("a text", "is not an object with a string 'role'"), ({}, "is not an object with a string 'role'"),
        ({"role": 1, "content": "a"}, "is not an object with a string 'role'"), ({"role": "user"}, "has no content"),
        ({"role": "user", "content": None}, "has no content"), ({"role": "user", "content": 1}, "has no content"),
        ({"role": "user", "content": None, "tool_calls": {}}, "has no content"),
        ({"role": "user", "content": 1, "tool_calls": []}, "has no content"),
        ({"role": "user", "content": "a\ud800"}, "is not valid Unicode text"),
        ({"role": "user", "content": "a", "extra": {1}}, "is not JSON (Object of type set is not JSON serializable)"),
    ],
)  # fmt: skip
def test_messages_that_are_refused_are_counted_from_one(message, said):
    assert fails(check_messages, [message]) == f"message 1 {said}"
    assert fails(check_messages, [*TALK, message]) == f"message 6 {said}"
    check_messages(TALK)
