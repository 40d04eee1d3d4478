"""Names and places of files that a system refuses, or that no library takes: one line each."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.helpers.commands import invoke, one_line

SHORT = ["a", "--raw", "--max-new-tokens", "2", "--temperature", "0"]
# Longer than file systems allow, in bytes.
TOO_LONG = 300 * "n"


@pytest.mark.parametrize("option", ["--prompt-cache", "--file"])
def test_a_name_that_is_too_long(capsys, float_bundle, tmp_path, option):
    others = SHORT if option == "--prompt-cache" else SHORT[1:]
    code, out, err = invoke(capsys, "generate", float_bundle, *others, option, tmp_path / TOO_LONG)
    assert (code in (1, 2), out) == (True, "")
    assert "File name too long" in one_line(err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="links and names of bytes")
def test_links_in_a_circle(capsys, float_bundle, tmp_path):
    """Nothing has the name, so a file may get it."""
    circle = tmp_path / "circle"
    circle.symlink_to(circle)
    code, _, err = invoke(capsys, "generate", float_bundle, *SHORT, "--prompt-cache", circle)
    assert (code, err) == (0, "")
    assert circle.is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_names_that_are_not_unicode(capsys, float_bundle, tmp_path):
    """The libraries that open a bundle's files take no such name."""
    name = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.symlink(float_bundle, name)
    code, out, err = invoke(capsys, "generate", os.fsdecode(name), *SHORT)
    assert (code, out) == (1, "")
    assert "is not valid Unicode; give the file or the folder another name" in one_line(err)


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8")
def test_names_that_are_not_unicode_come_out_as_they_are(own_bundle, tmp_path):
    name, key = os.fsencode(tmp_path) + b"/\xff\xfe", tmp_path / "key.pem"
    os.symlink(own_bundle, name)
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(*form))
    key.chmod(0o600)
    done = subprocess.run([sys.executable, "-m", "triform", "sign", name, "--key", key], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"signed: " + name + b"/manifest.json.sig\n"


def test_a_batch_leaves_nothing_in_a_folder_that_it_refuses(capsys, sentence_bundle, tmp_path):
    source, output = tmp_path / "texts.txt", tmp_path / "mine"
    source.write_text("a\nb\n", encoding="utf-8")
    output.mkdir()
    (output / "notes").write_text("mine", encoding="utf-8")
    code, _, err = invoke(capsys, "batch", "embed", sentence_bundle, "--input", source, "--output", output)
    assert code == 2
    assert "holds other files, such as notes" in one_line(err)
    assert [path.name for path in output.iterdir()] == ["notes"]
