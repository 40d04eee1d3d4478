"""Tools in prompts, against transformers with the same tokenizer and template."""

from __future__ import annotations

import shutil

import pytest
from transformers import PreTrainedTokenizerFast

import triform
from tests.checkpoints.decoders import byte_level_tokenizer
from tests.helpers.bundles import adopt, read_manifest_json, write_manifest
from tests.runtime.decoder.test_chat_template import CALL, CONVERSATIONS, USER, WEATHER
from triform.runtime.decoder.prompt import PromptInput
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.generation.options.generation import GenerationOptions

GREEDY = GenerationOptions(max_new_tokens=16, temperature=0)
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
TEMPLATE = """{% if tools %}<|system|>{% for tool in tools %}
{{ loop.index }} {{ tool | tojson }}
{% endfor %}<|end|>{% elif tools is none %}none{% endif %}
{% for m in messages %}<|{{ m.role }}|>{{ m.content }}
{% for call in m.tool_calls or [] %}{{ call.function.name }} {{ call.function.arguments | tojson }}{% endfor %}
{{ m.tool_call_id }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""


def with_template(bundle, folder, template):
    """A copy of a bundle with another chat template, or none."""
    shutil.copytree(bundle, folder)
    if template is not None:
        adopt(folder, "chat_template.jinja", template.encode())
        return folder
    (folder / "chat_template.jinja").unlink()
    manifest = read_manifest_json(folder)
    del manifest["files"]["chat_template.jinja"]
    manifest["tokenizer"]["chat_template"] = None
    write_manifest(folder, manifest)
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
    assert model._prompts.prompt_ids(PromptInput(messages, tools=tools)) == expected
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


def test_tools_that_nobody_would_learn_of(float_bundle, tmp_path):
    model = triform.load(float_bundle)
    with pytest.raises(InputError, match="chat template does not support tools"):
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
