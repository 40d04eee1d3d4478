"""Nothing is written into a bundle, which would be refused from then on, nor over a file that a command reads."""

from __future__ import annotations

import json
import shutil

import pytest

import triform
from tests.helpers.commands import one_line
from triform.runtime.bundle.outside import check_outside_bundles
from triform.runtime.errors import InputError
from triform.runtime.opening import load_decoder

SCHEMA = {"type": "object", "properties": {"a": {"enum": [1]}}, "required": ["a"], "additionalProperties": False}


def test_a_folder_of_another_manifest_is_no_bundle(tmp_path, float_bundle):
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    check_outside_bundles(tmp_path / "deep" / "file")
    check_outside_bundles(float_bundle)
    for inside in (float_bundle / "file", float_bundle / "deep" / "folder"):
        with pytest.raises(InputError, match=r"in the folder of the bundle .* which holds nothing else"):
            check_outside_bundles(inside)


def test_a_link_into_a_bundle_leads_there(tmp_path, float_bundle):
    (tmp_path / "link").symlink_to(float_bundle)
    with pytest.raises(InputError, match="it is in the folder of the bundle"):
        check_outside_bundles(tmp_path / "link" / "file")


@pytest.mark.parametrize(
    "arguments",
    [
        ("generate", "B", "Hi", "--max-new-tokens", 1, "--prompt-cache", "B/own"),
        ("export", "nowhere", "B/own"),
        ("import", "B", "B/own"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_commands_write_nothing_into_a_bundle(call, float_bundle, tmp_path, arguments):
    bundle = shutil.copytree(float_bundle, tmp_path / "bundle")
    before = sorted(bundle.iterdir())
    given = [str(argument).replace("B", str(bundle), 1) for argument in arguments]
    code, out, err = call(*given)
    assert (code, out) == (2, "")
    assert "own cannot be written: it is in the folder of the bundle" in one_line(err)
    assert sorted(bundle.iterdir()) == before


def test_python_writes_nothing_into_a_bundle(float_bundle, tmp_path):
    bundle = shutil.copytree(float_bundle, tmp_path / "bundle")
    model = load_decoder(bundle, threads=1)
    conversation = triform.Conversation(model, options=triform.GenerationOptions(max_new_tokens=1))
    found = conversation.send("Hi")
    for write in (
        lambda: conversation.save(bundle / "own.json"),
        lambda: model.save_prompt_cache(bundle / "own.cache", found.prompt_tokens),
    ):
        with pytest.raises(InputError, match="it is in the folder of the bundle"):
            write()
    assert load_decoder(bundle, threads=1).manifest == model.manifest


def test_an_index_is_not_kept_in_a_bundle(sentence_bundle, tmp_path, call):
    bundle = shutil.copytree(sentence_bundle, tmp_path / "bundle")
    (tmp_path / "texts.txt").write_text("a\nb\n")
    code, _, err = call("search", bundle, "q", "--file", tmp_path / "texts.txt", "--index", bundle / "own")
    assert code == 2
    assert "it is in the folder of the bundle" in one_line(err)
    assert not (bundle / "own").exists()


@pytest.mark.parametrize(
    ("option", "content"),
    [("--json-schema", json.dumps(SCHEMA)), ("--grammar", 'root ::= "a"\n'), ("--tools", "[]")],
)
def test_a_file_that_an_option_reads_is_not_written_over(call, float_bundle, tmp_path, option, content):
    (tmp_path / "prompts.txt").write_text("Hi\n")
    file = tmp_path / "read.json"
    file.write_text(content)
    code, out, err = call("generate", float_bundle, "--input", tmp_path / "prompts.txt", "--output", file, option, file)
    assert (code, out) == (2, "")
    assert "read.json cannot be written: this command reads it" in one_line(err)
    assert file.read_text() == content
    # The next command of the same process reads other files.
    code, _, err = call("generate", float_bundle, "--input", tmp_path / "prompts.txt", "--output", file,
                        "--max-new-tokens", 1)  # fmt: skip
    assert (code, err) == (0, "")
