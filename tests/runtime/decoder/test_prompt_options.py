"""Variables of chat templates, several templates, and answers that are begun: prompts as transformers makes them."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import AutoTokenizer

import triform
from tests.checkpoints.decoders import CHAT_TEMPLATE, llama_folder
from tests.helpers.bundles import adopt, read_manifest_json, write_manifest
from triform.cli.main import run
from triform.export.describe.chat_templates import chat_templates, write_chat_templates
from triform.runtime.decoder.prompt import PromptInput
from triform.runtime.errors import InputError
from triform.runtime.generation.options.generation import GenerationOptions

SHORT = GenerationOptions(max_new_tokens=3, temperature=0)
USER = {"role": "user", "content": "What is 2 + 2?"}
VARIABLES = """{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}
{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is defined and not enable_thinking %}<think></think>
{% endif %}{{ date }}{% for word in words or [] %}{{ loop.index }}{{ word }}{% endfor %}{% endif %}"""
SEVERAL = {
    "default": CHAT_TEMPLATE,
    "tool_use": "{{ tools | tojson }}" + CHAT_TEMPLATE,
    "rag": "{% for d in documents %}{{ d.title }}: {{ d.text }}\n{% endfor %}" + CHAT_TEMPLATE,
}


def with_templates(bundle, folder, templates):
    """A copy of a bundle with other chat templates, as an export writes them."""
    shutil.copytree(bundle, folder)
    (folder / "chat_template.jinja").unlink()
    files = write_chat_templates(templates, folder)
    manifest = read_manifest_json(folder)
    del manifest["files"]["chat_template.jinja"]
    manifest["tokenizer"] |= {"chat_template": files.get("default")}
    manifest["tokenizer"]["chat_templates"] = {name: file for name, file in files.items() if name != "default"}
    write_manifest(folder, manifest)
    for file in files.values():
        adopt(folder, file, (folder / file).read_bytes())
    return folder


@pytest.fixture(scope="module")
def theirs(checkpoint):
    return AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def variables(float_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("variables") / "bundle"
    return with_templates(float_bundle, folder, {"default": VARIABLES})


@pytest.fixture(scope="module")
def several(float_bundle, tmp_path_factory):
    return with_templates(float_bundle, tmp_path_factory.mktemp("several") / "bundle", SEVERAL)


def ids_of(model, messages, **options):
    return model._prompts.prompt_ids(PromptInput(messages, **options))


@pytest.mark.parametrize(
    "given",
    [{}, {"enable_thinking": False}, {"enable_thinking": True}, {"date": "<s> today", "words": ["a", 1, None]}],
)
def test_variables_reach_the_template_in_every_call(variables, theirs, given):
    model = triform.load(variables)
    expected = theirs.apply_chat_template(
        [USER], chat_template=VARIABLES, add_generation_prompt=True, return_dict=False, **given
    )
    assert ids_of(model, [USER], template_vars=given) == expected
    assert model.count_tokens([USER], template_vars=given) == len(expected)
    assert model.generate([USER], SHORT, template_vars=given).prompt_tokens == len(expected)
    list(model.stream(USER["content"], SHORT, template_vars=given))
    assert model._step.ids[: len(expected)] == expected
    (batch,) = model.generate_all([[USER]], SHORT, template_vars=given)
    assert batch[0].text == model.generate([USER], SHORT, template_vars=given).text
    talk = triform.Conversation(model, options=SHORT, template_vars=given)
    assert talk.send(USER["content"]).prompt_tokens == len(expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"messages": []}, "^`template_vars` 'messages' cannot be set"),
        ({"tools": []}, "^`template_vars` 'tools' cannot be set"),
        ({"add_generation_prompt": False}, "^`template_vars` 'add_generation_prompt' cannot be set"),
        ({"self": 1}, "^`template_vars` 'self' cannot be set"),
        ({"enable thinking": 1}, "is not the name of a variable"),
        ({"date": object()}, "must be a string, a number"),
        ({"date": {1: "a"}}, "must be a string, a number"),
        ({"date": "\ud800"}, "must be a string, a number"),
        ({"enable_thinkin": False}, "does not use the variable enable_thinkin"),
    ],
)
def test_variables_that_cannot_be_given(variables, given, message):
    with pytest.raises(InputError, match=message):
        triform.load(variables).count_tokens("Hi", template_vars=given)


@pytest.mark.parametrize(
    ("flags", "given"),
    [
        (["enable_thinking=false"], {"enable_thinking": False}),
        (['words=["a", 2]', "date=to=day"], {"words": ["a", 2], "date": "to=day"}),
        (['date="false"'], {"date": "false"}),
        (["date=NaN"], {"date": "NaN"}),
    ],
)
def test_variables_on_the_command_line(variables, capsys, flags, given):
    arguments = [part for one in flags for part in ("--template-var", one)]
    assert run(["generate", str(variables), "Hi", "--max-new-tokens", "2", "--json", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] == triform.load(variables).count_tokens(
        "Hi", template_vars=given
    )


@pytest.mark.parametrize("wrong", ["enable_thinking", "=1", "messages=[]"])
def test_wrong_variables_on_the_command_line(variables, capsys, wrong):
    assert run(["generate", str(variables), "Hi", "--template-var", wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1


TURNS = [USER, {"role": "assistant", "content": "The answer is"}]
TRIMMING = CHAT_TEMPLATE.replace("message['content']", "message['content'] | trim")
PARTS = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}<|end|>{% endfor %}"
)


@pytest.mark.parametrize("template", [CHAT_TEMPLATE, TRIMMING, PARTS], ids=["plain", "trimming", "parts"])
@pytest.mark.parametrize(
    "content",
    [
        "The answer is",
        " The answer is ",
        "4\n\n",
        "",
        [{"type": "text", "text": "It "}, {"type": "text", "text": "is "}],
    ],
)
def test_the_assistants_last_words_are_continued(float_bundle, theirs, tmp_path, template, content):
    if isinstance(content, list) and template is not PARTS:
        template = PARTS
    model = triform.load(with_templates(float_bundle, tmp_path / "bundle", {"default": template}))
    messages = [USER, {"role": "assistant", "content": content}]
    expected = theirs.apply_chat_template(
        messages, chat_template=template, continue_final_message=True, return_dict=False
    )
    assert ids_of(model, messages) == expected
    if isinstance(content, str):
        assert ids_of(model, [USER], prefill=content) == expected
        assert ids_of(model, USER["content"], prefill=content) == expected


def test_a_continued_answer_goes_on_from_there(float_bundle, theirs, capsys, tmp_path):
    model = triform.load(float_bundle)
    prompt = theirs.apply_chat_template(TURNS, continue_final_message=True, tokenize=False)
    assert prompt.endswith("<|assistant|>The answer is")
    expected = model.generate(prompt, SHORT, raw=True)
    assert model.generate(TURNS, SHORT).token_ids == expected.token_ids
    command = ["generate", str(float_bundle), "--max-new-tokens", "3", "--temperature", "0"]
    assert run([*command[:2], USER["content"], *command[2:], "--prefill", "The answer is"]) == 0
    assert capsys.readouterr().out == expected.text + "\n"
    file = tmp_path / "turns.jsonl"
    file.write_text(json.dumps({"messages": TURNS}) + "\n")
    assert run([*command, "--input", str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["generated_text"] == expected.text
    talk = triform.Conversation(model, options=SHORT)
    talk.send(TURNS)
    assert talk.messages == [USER, {"role": "assistant", "content": "The answer is" + expected.text}]


@pytest.mark.parametrize(
    ("template", "messages", "prefill", "message"),
    [
        (CHAT_TEMPLATE, TURNS, "x", "leave `prefill` out"),
        (CHAT_TEMPLATE, [USER, {"role": "assistant", "tool_calls": []}], None, "has no text to continue"),
        (CHAT_TEMPLATE, [USER, {"role": "assistant", "content": [{"type": "image"}]}], None, "no text to continue"),
        ("{{ messages[0].content | upper }}", TURNS, None, "does not reproduce it literally"),
        ("{{ bos_token }}", TURNS, None, "does not read messages' content"),
    ],
)
def test_what_cannot_be_continued(float_bundle, tmp_path, template, messages, prefill, message):
    model = triform.load(with_templates(float_bundle, tmp_path / "bundle", {"default": template}))
    with pytest.raises(InputError, match=message):
        model.count_tokens(messages, prefill=prefill)


def test_a_raw_prompt_takes_none_of_it(float_bundle):
    model = triform.load(float_bundle)
    for given in ({"prefill": "x"}, {"template_vars": {"a": 1}}, {"template": "default"}):
        with pytest.raises(InputError, match=r"needs a chat template; this bundle has none, or `raw` was given"):
            model.count_tokens("Hi", raw=True, **given)


TOOLS = [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}]


@pytest.mark.parametrize("tools", [None, [], TOOLS], ids=["none", "empty", "one"])
@pytest.mark.parametrize("name", [None, "default", "tool_use"])
def test_a_template_is_chosen_as_transformers_does(several, theirs, tools, name):
    theirs.chat_template = SEVERAL
    expected = theirs.apply_chat_template(
        [USER], tools=tools, chat_template=name, add_generation_prompt=True, return_dict=False
    )
    model = triform.load(several)
    if tools and name == "default":
        with pytest.raises(InputError, match="does not support tools"):
            ids_of(model, [USER], tools=tools, template=name)
    else:
        assert ids_of(model, [USER], tools=tools, template=name) == expected


def test_documents_are_a_variable(several, theirs, capsys):
    documents = [{"title": "Sums", "text": "2 + 2 = 4"}]
    expected = theirs.apply_chat_template(
        [USER], documents=documents, chat_template=SEVERAL["rag"], add_generation_prompt=True, return_dict=False
    )
    assert ids_of(triform.load(several), [USER], template="rag", template_vars={"documents": documents}) == expected
    arguments = ["--template", "rag", "--template-var", f"documents={json.dumps(documents)}", "--json"]
    assert run(["generate", str(several), USER["content"], "--max-new-tokens", "1", *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["prompt_tokens"] == len(expected)


def test_templates_that_cannot_be_chosen(several, float_bundle, tmp_path, capsys):
    with pytest.raises(InputError, match=r"no chat template 'x'; it has: default, rag, tool_use$"):
        triform.load(several).count_tokens("Hi", template="x")
    bundle = with_templates(float_bundle, tmp_path / "bundle", {"a": CHAT_TEMPLATE, "tool_use": SEVERAL["tool_use"]})
    model = triform.load(bundle)
    with pytest.raises(InputError, match=r"choose one with `template`: a, tool_use$"):
        model.count_tokens("Hi")
    assert model.count_tokens("Hi", template="a") == triform.load(float_bundle).count_tokens("Hi")
    assert model.count_tokens("Hi", tools=TOOLS) > model.count_tokens("Hi", template="a")
    assert run(["inspect", str(bundle)]) == 0
    assert any(line.split(maxsplit=2)[2:] == ["a, tool_use"] for line in capsys.readouterr().out.splitlines())


def test_templates_of_every_form_are_read(tmp_path):
    folder = llama_folder(tmp_path / "checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert chat_templates(tokenizer) == {"default": CHAT_TEMPLATE}
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text(SEVERAL["tool_use"])
    assert chat_templates(AutoTokenizer.from_pretrained(folder)) == {
        "default": CHAT_TEMPLATE, "tool_use": SEVERAL["tool_use"]
    }  # fmt: skip
    # As older releases of transformers write them.
    shutil.rmtree(folder / "additional_chat_templates")
    (folder / "chat_template.jinja").unlink()
    config = folder / "tokenizer_config.json"
    listed = [{"name": name, "template": template} for name, template in SEVERAL.items()]
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": listed}))
    assert chat_templates(AutoTokenizer.from_pretrained(folder)) == SEVERAL


def test_files_of_templates_whatever_they_are_called(tmp_path):
    named = {"default": "a", "../x": "b", "..%x": "c", "tool_use": "d\r\n", "TOOL_USE": "e", "é" * 300: "f"}
    files = write_chat_templates(named, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files.values())
    assert len({name.lower() for name in files.values()}) == len(named)
    assert {name: (tmp_path / file).read_bytes().decode() for name, file in files.items()} == named
    assert all(len(file) < 100 for file in files.values())
