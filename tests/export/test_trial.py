"""A bundle is used as its reader will use it, before it gets its name."""

from __future__ import annotations

import json
import os
import shutil

import pytest

import triform
from tests.helpers.bundles import adopt, change, read_manifest_json
from triform.cli.main import run
from triform.export.trial import try_bundle
from triform.runtime.errors import ExportError


def test_a_good_bundle(own_bundle, sentence_bundle):
    try_bundle(own_bundle)
    try_bundle(sentence_bundle)


@pytest.mark.parametrize("template", ["{% for %}", "{{ nothing() }}", "{{ raise_exception('never') }}", "{{ 1 / 0 }}"])
def test_a_template_that_takes_no_messages(own_bundle, template):
    adopt(own_bundle, "chat_template.jinja", template.encode())
    with pytest.raises(ExportError, match=r"would not work: default template: .*; correct it or remove it"):
        try_bundle(own_bundle)


def test_a_template_that_insists_on_a_system_message(own_bundle):
    template = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[1].content }}"
    )
    adopt(own_bundle, "chat_template.jinja", template.encode())
    try_bundle(own_bundle)


def test_what_the_reader_refuses(own_bundle):
    change(own_bundle, max_length=-1)
    with pytest.raises(ExportError, match=r"would not work: manifest\.json: max_length must be at least 2"):
        try_bundle(own_bundle)


def test_a_tokenizer_that_fails(own_bundle):
    tokenizer = json.loads((own_bundle / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["model"] = {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "?"}
    adopt(own_bundle, "tokenizer.json", json.dumps(tokenizer).encode())
    with pytest.raises(ExportError, match="would not work"):
        try_bundle(own_bundle)


@pytest.fixture
def own_checkpoint(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "checkpoint")


def set_defaults(folder, **entries):
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_defaults_out_of_range_are_left_out_with_a_note(capsys, own_checkpoint, tmp_path):
    set_defaults(own_checkpoint, top_k=-5, temperature=-1.0, repetition_penalty=1.5, pad_token_id=-1, guidance_scale=2)
    out = tmp_path / "out"
    assert run(["export", str(own_checkpoint), str(out), "--quantize", "none", "--json"]) == 0
    notes = [
        "left out the generation default guidance_scale: bundles answer without it",
        "left out the pad token: it must be a token id from 0 to 399, not -1",
        "left out the generation default temperature: it must be at least 0, not -1.0",
        "left out the generation default top_k: it must be at least 0, not -5",
    ]
    assert json.loads(capsys.readouterr().out)["notes"] == notes
    manifest = read_manifest_json(out)
    assert manifest["export"]["notes"] == notes
    assert manifest["tokens"]["pad"] is None
    assert (manifest["generation"]["top_k"], manifest["generation"]["repetition_penalty"]) == (None, 1.5)
    triform.load(out)


def test_a_broken_template_makes_no_bundle(capsys, own_checkpoint, tmp_path):
    (own_checkpoint / "chat_template.jinja").write_text("{% for %}")
    assert run(["export", str(own_checkpoint), str(tmp_path / "out"), "--quantize", "none"]) == 1
    assert "error: the bundle would not work: default template:" in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["checkpoint"]


def test_a_template_that_is_no_text(capsys, own_checkpoint, tmp_path):
    (own_checkpoint / "chat_template.jinja").unlink()
    path = own_checkpoint / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": 5}))
    assert run(["export", str(own_checkpoint), str(tmp_path / "out"), "--quantize", "none"]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: a chat template of checkpoint is no text, but 5; correct it or remove it"
    )
