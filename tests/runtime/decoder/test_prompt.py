"""How a prompt becomes text and ids: with templates that are written out here, and a tokenizer of code points."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.decoder.prompt import PromptEncoder
from triform.runtime.decoder.prompt_input import PromptInput
from triform.runtime.errors import BundleError, InputError

BOS = 1
DEFAULT = (
    "{% for m in messages %}<{{ m.role[0] }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)
TOOLS = "{{ tools | length }} tools:" + DEFAULT
FOX = [{"type": "function", "function": {"name": "fox"}}]


class Letters:
    """Each character is its code point; the special token stands before a text."""

    def encode(self, text, *, add_special_tokens):
        return SimpleNamespace(ids=[BOS] * add_special_tokens + [ord(one) for one in text])


@pytest.fixture
def encoder(tmp_path):
    def make(vocab_size=1000, **templates):
        for name, template in templates.items():
            (tmp_path / name).write_text(template, encoding="utf-8")
        named = {name: name for name in templates if name != "default"}
        info = TokenizerInfo(
            file="t", special={}, chat_template="default" if "default" in templates else None, chat_templates=named
        )
        bundle = SimpleNamespace(
            folder=tmp_path, tokenizer=info, path=tmp_path.joinpath, manifest=SimpleNamespace(vocab_size=vocab_size)
        )
        return PromptEncoder(bundle, Letters())

    return make


def read(encoder, *arguments, **options):
    ids = encoder.prompt_ids(PromptInput(*arguments, **options))
    return "".join("^" if one == BOS else chr(one) for one in ids)


def test_a_text_is_the_users_message_unless_it_is_raw(encoder):
    made = encoder(default=DEFAULT)
    assert read(made, "hi") == "<u>hi<a>"
    # The template has added the special tokens that there are to be; the tokenizer adds its own to a text.
    assert read(made, "hi", raw=True) == "^hi"
    assert read(encoder(), "hi") == read(encoder(), "hi", raw=True) == "^hi"


def test_messages_before_and_after_the_prompt(encoder):
    made = encoder(default=DEFAULT)
    assert read(made, "hi", system="be") == "<s>be<u>hi<a>"
    messages = [{"role": "user", "content": "hi"}]
    assert read(made, messages) == "<u>hi<a>"
    # The answer has begun, and is not begun again.
    assert read(made, messages, prefill="yo") == "<u>hi<a>yo"
    assert read(made, [*messages, {"role": "assistant", "content": "yo"}]) == "<u>hi<a>yo"


@pytest.mark.parametrize(
    ("options", "needs"),
    [
        ({"system": "be"}, "a system message needs"), ({"tools": FOX}, "tools need"), ({"tools": []}, "tools need"),
        ({"template": "x"}, "`template` needs"), ({"prefill": ""}, "`prefill` needs"),
        ({"template_vars": {"x": 1}}, "`template_vars` needs"),
    ],
)  # fmt: skip
def test_what_needs_a_template(encoder, options, needs):
    for made, raw in ((encoder(), False), (encoder(), True), (encoder(default=DEFAULT), True)):
        with pytest.raises(InputError, match=f"^{needs} a chat template; this bundle has none, or `raw` was given$"):
            read(made, "hi", raw=raw, **options)
    assert read(encoder(), "hi", template_vars={}) == "^hi"


def test_messages_need_a_template(encoder):
    messages = [{"role": "user", "content": "hi"}]
    with pytest.raises(InputError, match=r"^`raw` is for a text, not for messages"):
        read(encoder(default=DEFAULT), messages, raw=True)
    with pytest.raises(InputError, match=r"^messages need a chat template and this bundle has none"):
        read(encoder(), messages)


def test_the_template_that_tools_and_names_choose(encoder):
    both = encoder(default=DEFAULT, tool_use=TOOLS, other="O{{ messages[0].content }}")
    assert read(both, "hi") == "<u>hi<a>"
    assert read(both, "hi", tools=FOX) == "1 tools:<u>hi<a>"
    assert read(both, "hi", template="other") == "Ohi"
    assert read(both, "hi", template="tool_use", tools=[*FOX, *FOX]) == "2 tools:<u>hi<a>"
    # No tools are tools too, where a template is chosen.
    assert read(both, "hi", tools=[]) == "0 tools:<u>hi<a>"
    assert read(encoder(default=TOOLS), "hi", tools=FOX) == "1 tools:<u>hi<a>"
    with pytest.raises(
        InputError, match=r"^this bundle has no chat template 'none'; it has: default, other, tool_use$"
    ):
        read(both, "hi", template="none")
    with pytest.raises(InputError, match=r"^this bundle has several chat templates; choose one with `template`: a, b$"):
        read(encoder(a=DEFAULT, b=DEFAULT), "hi")


def test_tools_that_no_template_reads_are_refused(encoder):
    with pytest.raises(InputError, match="does not support tools"):
        read(encoder(default=DEFAULT), "hi", tools=FOX)
    assert read(encoder(default=DEFAULT), "hi", tools=[]) == "<u>hi<a>"
    with pytest.raises(InputError, match="must be JSON schemas of functions, which are objects, not 'fox'"):
        read(encoder(default=TOOLS), "hi", tools=["fox"])


def test_variables_are_those_that_the_template_reads(encoder):
    made = encoder(default="{{ mood }}:" + DEFAULT)
    assert read(made, "hi", template_vars={"mood": "glad"}) == "glad:<u>hi<a>"
    # Half of a name is another name.
    for name in ("moo", "oods", "d"):
        with pytest.raises(InputError, match=f"does not use the variable {name}; leave out `template_vars` {name}$"):
            read(made, "hi", template_vars={name: 1})


def test_ids_outside_the_vocabulary(encoder):
    assert encoder(vocab_size=106).text_ids("hi") == [BOS, 104, 105]
    with pytest.raises(BundleError, match="gives the token id 105, but the model's vocabulary has 105 tokens"):
        encoder(vocab_size=105).text_ids("hi")
    assert encoder(vocab_size=8).known(7) == 7
    with pytest.raises(BundleError, match="token id 8"):
        encoder(vocab_size=8).known(8)


def test_what_is_empty(encoder):
    for made, raw in ((encoder(), False), (encoder(default=DEFAULT), True), (encoder(default=DEFAULT), False)):
        with pytest.raises(InputError, match=r"^the prompt is empty$"):
            read(made, "", raw=raw)
    # White space alone is no message, but it is a text.
    with pytest.raises(InputError, match=r"^the prompt is empty$"):
        read(encoder(default=DEFAULT), " \n")
    assert read(encoder(), " ") == "^ "
    with pytest.raises(InputError, match=r"^the prompt is empty: it has no tokens$"):
        read(encoder(default="{{ messages[1] }}"), "hi")


def test_a_template_that_cannot_be_read(encoder, tmp_path):
    made = encoder(default=DEFAULT)
    (tmp_path / "default").write_bytes(b"\xff")
    with pytest.raises(BundleError, match=r"default cannot be read .*copy the bundle again"):
        read(made, "hi")
    (tmp_path / "default").write_text(DEFAULT)
    assert read(made, "hi") == "<u>hi<a>"
    # Once read, it is known.
    (tmp_path / "default").unlink()
    assert read(made, "hi") == "<u>hi<a>"
