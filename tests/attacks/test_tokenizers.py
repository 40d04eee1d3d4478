"""Tokenizers that fail: when they are read, when a text is cut, and when tokens are joined."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

import triform
from tests.helpers.bundles import adopt
from triform.runtime.errors import BundleError
from triform.runtime.text.tokenizer import load_tokenizer


def split(expression):
    return {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}


UNREADABLE = {
    "charsmap": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    "expression": {
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(("}, "behavior": "Isolated", "invert": False}
    },
    "model": {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}},
    "kind": {"decoder": {"type": "Nothing"}},
    "added": {"added_tokens": [{"id": "x"}]},
}
# Without an unknown token, or with one that the vocabulary does not have, only texts of known words can be cut.
UNABLE = {
    "word level": {"model": {"type": "WordLevel", "vocab": {"known": 0}, "unk_token": "[UNK]"}},
    "word piece": {
        "model": {
            "type": "WordPiece",
            "vocab": {"known": 0},
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        }
    },
    "unigram": {"model": {"type": "Unigram", "vocab": [["known", -1.0]], "unk_id": None, "byte_fallback": False}},
    "backtracking": {"pre_tokenizer": split("(a+)+$")},
}
TEXT = 34 * "a" + "!"


def tokenizer_of(bundle, entries):
    content = json.loads((bundle / "tokenizer.json").read_text(encoding="utf-8"))
    content.update(normalizer=None, pre_tokenizer=None, post_processor=None, added_tokens=[])
    return json.dumps({**content, **entries}).encode()


@pytest.mark.parametrize("entries", UNREADABLE.values(), ids=list(UNREADABLE))
def test_a_file_that_cannot_be_read(own_bundle, entries):
    adopt(own_bundle, "tokenizer.json", tokenizer_of(own_bundle, entries))
    with pytest.raises(BundleError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        triform.load(own_bundle)


@pytest.mark.parametrize("entries", UNABLE.values(), ids=list(UNABLE))
def test_a_text_that_cannot_be_cut(own_bundle, entries):
    (own_bundle / "tokenizer.json").write_bytes(tokenizer_of(own_bundle, entries))
    tokenizer = load_tokenizer(own_bundle / "tokenizer.json")
    for cut in (tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(BundleError, match=r"tokenizer\.json fails \(.+\); export the model again"):
            cut(TEXT)


def test_tokens_that_cannot_be_joined(own_bundle):
    broken = {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}
    model = {"type": "WordLevel", "vocab": {TEXT: 0}, "unk_token": "?"}
    (own_bundle / "tokenizer.json").write_bytes(tokenizer_of(own_bundle, {"model": model, "decoder": broken}))
    tokenizer = load_tokenizer(own_bundle / "tokenizer.json")
    with pytest.raises(BundleError, match=r"tokenizer\.json fails"):
        tokenizer.decode([0])


@pytest.mark.parametrize("entries", [UNREADABLE["charsmap"], UNABLE["backtracking"], UNABLE["unigram"]])
def test_a_command_says_one_line(own_bundle, entries):
    """What Rust prints of a panic, with its stack trace, is kept off standard error."""
    adopt(own_bundle, "tokenizer.json", tokenizer_of(own_bundle, entries))
    command = [sys.executable, "-m", "triform", "generate", str(own_bundle), TEXT, "--raw"]
    done = subprocess.run(command, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (1, "")
    assert line.startswith("error: ")
    assert "tokenizer.json" in line


def test_standard_error_comes_back(own_bundle):
    fails = f"load_tokenizer(Path({str(own_bundle / 'manifest.json')!r}))"
    code = "import os; from pathlib import Path; from triform.runtime.text.tokenizer import load_tokenizer\n"
    code += f"os.write(2, b'before ')\ntry: {fails}\nexcept Exception: os.write(2, b'after')"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stderr == b"before after"


@pytest.mark.parametrize(
    "command",
    [
        ["embed", "BUNDLE", TEXT],
        ["embed", "BUNDLE", "--file", "FILE"],
        ["similarity", "BUNDLE", "known", TEXT],
        ["search", "BUNDLE", "known", "--file", "FILE"],
    ],
    ids=["embed", "embed a file", "similarity", "search"],
)
def test_commands_that_work_ahead_say_one_line(sentence_bundle, tmp_path, command):
    """They cut texts in a thread."""
    bundle, file = shutil.copytree(sentence_bundle, tmp_path / "bundle"), tmp_path / "texts.txt"
    adopt(bundle, "tokenizer.json", tokenizer_of(bundle, UNABLE["backtracking"]))
    file.write_text(f"known\n{TEXT}\n", encoding="utf-8")
    places = {"BUNDLE": str(bundle), "FILE": str(file)}
    command = [sys.executable, "-m", "triform", *(places.get(part, part) for part in command)]
    done = subprocess.run(command, capture_output=True, text=True)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1
    assert line.startswith("error: ")
    assert "tokenizer.json fails" in line


WRITES = """
import os, threading
from triform.runtime.panics import failures_as

def write(name, begun, go_on):
    with failures_as(ValueError):
        os.write(2, name)
        begun.set()
        go_on.wait()

begun, go_on = threading.Event(), threading.Event()
thread = threading.Thread(target=write, args=(b"a thread, ", begun, go_on), name=NAME)
thread.start()
begun.wait()
write(b"the main thread, ", begun, begun)
now = os.fstat(2).st_size
go_on.set()
thread.join()
os.write(2, str(now).encode())
"""


@pytest.mark.parametrize(("name", "at_once"), [("triform-1", False), ("a program's own", True)])
def test_what_else_is_written_appears(tmp_path, name, at_once):
    """After the model's threads are done, or at once where threads of the program itself may write."""
    kept = tmp_path / "stderr"
    with kept.open("wb") as file:
        subprocess.run([sys.executable, "-c", f"NAME = {name!r}\n{WRITES}"], stderr=file, check=True)
    written = b"a thread, the main thread, "
    assert kept.read_bytes() == written + (b"%d" % len(written)) or not at_once
    assert kept.read_bytes().startswith(written)
