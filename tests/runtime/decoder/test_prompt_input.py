"""A prompt and what accompanies it, without a model: its messages, and what is refused."""

from __future__ import annotations

import pytest

from triform.runtime.decoder.prompt_input import PromptInput, check_template_var, check_unicode
from triform.runtime.errors import InputError

USER = {"role": "user", "content": "Hello"}
PARTS = {"role": "user", "content": [{"type": "text", "text": ""}]}
SAID = {"role": "assistant", "content": "Well"}


def fails(call, *arguments, **named):
    with pytest.raises(InputError) as caught:
        call(*arguments, **named)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "messages"),
    [
        ({"content": "Hello"}, [USER]), ({"content": (USER,)}, [USER]), ({"content": [USER, SAID]}, [USER, SAID]),
        ({"content": "Hello", "system": ""}, [{"role": "system", "content": ""}, USER]),
        ({"content": "Hello", "prefill": ""}, [USER, {"role": "assistant", "content": ""}]),
        (
            {"content": [USER], "system": "Be brief.", "prefill": "Well"},
            [{"role": "system", "content": "Be brief."}, USER, SAID],
        ),
        ({"content": [PARTS]}, [PARTS]),
    ],
)  # fmt: skip
def test_messages(given, messages):
    prompt = PromptInput(**given)
    assert prompt.messages() == messages
    # The caller's list is not changed.
    assert prompt.content == given["content"]


@pytest.mark.parametrize("content", ["", " \n", [], ()])
def test_empty_prompts(content):
    assert fails(PromptInput(content, system="a").messages) == "the prompt is empty"


@pytest.mark.parametrize("content", [None, 7, b"text", USER])
def test_what_is_neither_a_text_nor_messages(content):
    assert fails(PromptInput(content).messages) == f"the prompt must be a text or messages, not {content!r:.60}"


@pytest.mark.parametrize("message", ["text", {}, {"role": 1, "content": "a"}, None])
def test_what_is_no_message_is_named_by_its_number(message):
    said = fails(PromptInput([USER, message]).messages)
    assert said == f"message 2 of the prompt must have a role and a content, not {message!r}"
    assert fails(PromptInput([message]).messages).startswith("message 1 of the prompt")


def test_a_prefill_behind_an_answer_that_is_begun():
    said = fails(PromptInput([USER, SAID], prefill="a").messages)
    assert said == "the last message is the assistant's, which the model continues; leave `prefill` out"


def test_text_that_is_not_unicode():
    assert fails(PromptInput("ab\ud800").messages) == "the prompt is not valid Unicode text at character 3"
    assert fails(check_unicode, "\udfff") == "the prompt is not valid Unicode text at character 1"
    assert fails(PromptInput, "a", prefill="\ud800") == "the prompt is not valid Unicode text at character 1"
    check_unicode("\U0010ffff\0")


@pytest.mark.parametrize("prefill", [b"a", 1, ["a"]])
def test_a_prefill_is_a_text(prefill):
    assert fails(PromptInput, "a", prefill=prefill) == f"`prefill` must be a text, not {prefill!r}"


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({}, None), ({"raw": True}, None), ({"template_vars": {}}, None), ({"system": ""}, "a system message needs"),
        ({"tools": []}, "tools need"), ({"template": ""}, "`template` needs"),
        ({"template_vars": {"a": None}}, "`template_vars` needs"), ({"prefill": ""}, "`prefill` needs"),
        ({"prefill": "", "tools": [], "system": ""}, "a system message needs"),
        ({"prefill": "", "tools": []}, "tools need"),
    ],
)  # fmt: skip
def test_what_needs_a_template(given, what):
    assert PromptInput("a", **given).needs_template() == what


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "self"])
def test_names_that_templates_have_already(name):
    said = fails(check_template_var, name, 1)
    assert (
        said
        == f"`template_vars` {name!r} cannot be set; reserved names are messages, tools, add_generation_prompt, self"
    )


@pytest.mark.parametrize("name", ["", "a b", "1a", "a-b", 1, None])
def test_names_that_no_variable_has(name):
    assert fails(check_template_var, name, 1) == f"`template_vars` {name!r} is not the name of a variable"


@pytest.mark.parametrize(
    "value", [None, True, 0, 1.5, "", "é", [], (), {}, [1, [None, {"a": (2, "b")}]], {"a": {"b": [False]}}]
)
def test_values_of_json(value):
    check_template_var("a", value)
    assert PromptInput("a", template_vars={"a": value}).template_vars == {"a": value}


@pytest.mark.parametrize("value", [b"", {1}, object(), "\ud800", [1, {2}], {"a": b""}, {1: "a"}, {"a": {None: 1}}])
def test_values_that_json_does_not_have(value):
    said = "`template_vars` 'a' must be a string, a number, true, false, null, or a list or object of these"
    assert fails(check_template_var, "a", value) == said
    assert fails(PromptInput, "a", template_vars={"a": value}) == said
