"""Chat templates are compared with transformers at export, and rendered by an engine that gives the same."""

from __future__ import annotations

import json
import sys

import pytest
from transformers import AutoTokenizer

import triform
from tests.checkpoints.decoders import CHAT_TEMPLATE, llama_folder
from tests.helpers.bundles import change, read_manifest_json
from tests.runtime.decoder.test_chat_template import TEMPLATES
from triform.cli.main import run
from triform.export.describe import template_engine
from triform.export.describe.template_engine import choose_engine
from triform.runtime.errors import BundleError, ExportError, UnsupportedError

FORMATTED = "{% for m in messages %}{{ '<|%s|>%s<|end|>' % (m.role, m.content) }}{% endfor %}<|assistant|>"


@pytest.fixture(scope="module")
def tokenizer(checkpoint):
    return AutoTokenizer.from_pretrained(checkpoint)


def chosen(tokenizer, template):
    tokenizer.chat_template = template
    return choose_engine(tokenizer)


@pytest.mark.parametrize("name", TEMPLATES)
def test_usual_templates_are_rendered_by_minijinja(tokenizer, name):
    assert chosen(tokenizer, TEMPLATES[name]) == ("minijinja", [])


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (FORMATTED, "minijinja makes nothing: invalid operation: tried to use % operator"),
        ("{% for m in messages %}{{ m.content | urlize }}{% endfor %}", "unknown filter: filter urlize is unknown"),
        # Found by what it gives: a small number in a call.
        (
            "{% for m in messages %}{% for call in m.tool_calls or [] %}"
            "{% for k, v in call.function.arguments | items %}{{ k ~ '=' ~ v }}{% endfor %}"
            "{% endfor %}{{ m.content }}{% endfor %}",
            "of a call without content, minijinja makes",
        ),
        # No conversation that is tried comes there.
        (
            "{% if false %}{{ cycler('a') }}{% endif %}{{ messages[0].content }}",
            "minijinja has the name cycler otherwise",
        ),
        ("{% if false %}{{ tools.items }}{% endif %}{{ messages[0].content }}", "the attribute items of an object"),
        ({"default": CHAT_TEMPLATE, "tool_use": FORMATTED}, "tried to use % operator"),
    ],
)
def test_other_templates_are_rendered_by_jinja2(tokenizer, template, reason):
    engine, (note,) = chosen(tokenizer, template)
    assert engine == "jinja2"
    assert note.startswith("the chat template is rendered by Jinja2, which the device needs: ")
    assert reason in note and "\n" not in note


def test_a_template_that_refuses_everything_is_named(tokenizer):
    assert chosen(tokenizer, "{{ raise_exception('no') }}") == (
        "minijinja", ["the chat template default refuses every conversation tried: no"]
    )  # fmt: skip
    assert chosen(tokenizer, None) == ("minijinja", [])


def test_a_template_that_no_engine_renders_alike_is_refused(tokenizer, monkeypatch):
    original = template_engine.render_chat
    monkeypatch.setattr(template_engine, "render_chat", lambda *args, **more: original(*args, **more) + "!")
    with pytest.raises(
        ExportError, match=r"cannot be rendered as transformers does: of a question, jinja2 makes '.*!'"
    ):
        chosen(tokenizer, CHAT_TEMPLATE)


def test_a_bundle_whose_template_jinja2_renders(tmp_path, capsys, monkeypatch):
    folder, bundle = llama_folder(tmp_path / "checkpoint"), tmp_path / "bundle"
    (folder / "chat_template.jinja").write_text(FORMATTED)
    assert run(["export", str(folder), str(bundle), "--quantize", "none"]) == 0
    assert "the chat template is rendered by Jinja2" in capsys.readouterr().out
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["tokenizer"]["template_engine"] == "jinja2"
    assert len(manifest["export"]["notes"]) == 1
    messages = [{"role": "user", "content": "What is 2 + 2?"}]
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(messages, return_dict=False)
    assert triform.load(bundle).count_tokens(messages) == len(expected)
    # A device without Jinja2 says what is missing.
    monkeypatch.delitem(sys.modules, "triform.runtime.decoder.templates.sandbox", raising=False)
    monkeypatch.delattr("triform.runtime.decoder.templates.sandbox", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(UnsupportedError, match=r"^this bundle's chat template needs Jinja2: "):
        triform.load(bundle).count_tokens(messages)


def test_an_engine_that_is_none_is_refused(own_bundle):
    change(own_bundle, tokenizer=read_manifest_json(own_bundle)["tokenizer"] | {"template_engine": "eval"})
    with pytest.raises(BundleError, match=r"tokenizer\.template_engine must be minijinja or jinja2"):
        triform.load(own_bundle)
