"""Signatures that openssl makes and reads, too; keys and bundles that are refused."""

from __future__ import annotations

import os
import shutil
import sys

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.helpers.bundles import change
from triform.cli.main import run

PLAIN = pem.NoEncryption()


def write_keys(folder, key=None, encryption=PLAIN):
    """The paths of a private key, which only its owner can read, and of its public key."""
    key = key or Ed25519PrivateKey.generate()
    private, public = folder / "private.pem", folder / "public.pem"
    private.write_bytes(key.private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, encryption))
    private.chmod(0o600)
    public.write_bytes(key.public_key().public_bytes(pem.Encoding.PEM, pem.PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def keys(tmp_path):
    return write_keys(tmp_path)


def sign(bundle, key):
    return run(["sign", str(bundle), "--key", str(key)])


def verify(bundle, key):
    return run(["verify", str(bundle), "--key", str(key)])


def fails(capsys, code, expected, said):
    captured = capsys.readouterr()
    assert code == expected
    assert said in captured.err and captured.err.count("\n") == 1


def test_a_signature_is_over_the_bytes_of_the_manifest(own_bundle, keys):
    private, public = keys
    assert sign(own_bundle, private) == 0
    signature, manifest = (own_bundle / "manifest.json.sig").read_bytes(), (own_bundle / "manifest.json").read_bytes()
    # Raises where it is not.
    pem.load_pem_public_key(public.read_bytes()).verify(signature, manifest)
    assert verify(own_bundle, public) == 0
    # It is no stranger in the folder, and a second signature replaces it.
    assert run(["inspect", str(own_bundle)]) == 0
    assert sign(own_bundle, private) == 0


def test_a_signature_of_another_tool(own_bundle, keys):
    private, public = keys
    key = pem.load_pem_private_key(private.read_bytes(), None)
    (own_bundle / "manifest.json.sig").write_bytes(key.sign((own_bundle / "manifest.json").read_bytes()))
    assert verify(own_bundle, public) == 0


def test_what_was_changed_after_signing(own_bundle, keys, capsys):
    private, public = keys
    assert sign(own_bundle, private) == 0
    capsys.readouterr()
    change(own_bundle, model_name="another")
    fails(capsys, verify(own_bundle, public), 1, "is not a signature of this manifest")
    assert sign(own_bundle, private) == 0
    capsys.readouterr()
    data = next(own_bundle.glob("*.data"))
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    fails(capsys, verify(own_bundle, public), 1, f"{data.name} is damaged")
    fails(capsys, sign(own_bundle, private), 1, f"{data.name} is damaged")


def test_another_key_and_no_signature(own_bundle, keys, tmp_path, capsys):
    private, public = keys
    fails(capsys, verify(own_bundle, public), 1, "is not signed")
    (tmp_path / "other").mkdir()
    _, other = write_keys(tmp_path / "other")
    assert sign(own_bundle, private) == 0
    capsys.readouterr()
    fails(capsys, verify(own_bundle, other), 1, "do not use this bundle")
    for damaged in (b"", b"x" * 64, (own_bundle / "manifest.json.sig").read_bytes() + b"\n"):
        (own_bundle / "manifest.json.sig").write_bytes(damaged)
        fails(capsys, verify(own_bundle, public), 1, "do not use this bundle")
    shutil.move(own_bundle / "manifest.json.sig", tmp_path / "away")
    (own_bundle / "manifest.json.sig").symlink_to(tmp_path / "away")
    fails(capsys, verify(own_bundle, public), 1, "is not signed")


def test_keys_that_are_refused(own_bundle, keys, tmp_path, capsys):
    private, public = keys
    fails(capsys, sign(own_bundle, tmp_path / "no.pem"), 2, "no.pem cannot be read")
    fails(capsys, verify(own_bundle, tmp_path), 2, "cannot be read")
    fails(capsys, verify(own_bundle, private), 2, "is not an Ed25519 public key")
    public.chmod(0o600)
    fails(capsys, sign(own_bundle, public), 2, "is not an Ed25519 private key")
    for mode in (0o640, 0o604, 0o620):
        private.chmod(mode)
        fails(capsys, sign(own_bundle, private), 2, "can be read by other users")
    (tmp_path / "curve").mkdir()
    other, other_public = write_keys(tmp_path / "curve", ec.generate_private_key(ec.SECP256R1()))
    fails(capsys, sign(own_bundle, other), 2, "is not an Ed25519 private key")
    fails(capsys, verify(own_bundle, other_public), 2, "is not an Ed25519 public key")
    write_keys(tmp_path / "curve", encryption=pem.BestAvailableEncryption(b"word"))
    fails(capsys, sign(own_bundle, other), 2, "protected by a password")
    assert not os.path.lexists(own_bundle / "manifest.json.sig")


def test_without_cryptography(own_bundle, keys, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    fails(capsys, sign(own_bundle, keys[0]), 1, "signatures need cryptography: ")
    fails(capsys, verify(own_bundle, keys[1]), 1, "signatures need cryptography: ")


def test_a_link_in_the_place_of_the_signature(own_bundle, keys, tmp_path, capsys):
    """Whoever made the bundle chose the file that it names."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (own_bundle / "manifest.json.sig").symlink_to(victim)
    fails(capsys, sign(own_bundle, keys[0]), 1, "manifest.json.sig is a link")
    assert victim.read_text() == "precious"
