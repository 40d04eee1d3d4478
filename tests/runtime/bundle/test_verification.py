"""Which files are hashed when a bundle is loaded, and what is remembered of them."""

from __future__ import annotations

import hashlib
import os
import time

import pytest

import triform
from tests.helpers.commands import invoke, one_line
from triform.runtime import verified_files
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.bundle.verification import check_files
from triform.runtime.errors import BundleError, InputError

WEIGHTS = "decoder.onnx.data"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "triform" / "verified"


@pytest.fixture
def later(monkeypatch):
    """A minute after everything was written."""
    monkeypatch.setattr(verified_files.time, "time_ns", lambda: int((time.time() + 60) * 1e9))


@pytest.fixture
def hashed(monkeypatch):
    """Names of the files that were hashed, in order."""
    names, original = [], hashlib.file_digest

    def digest(file, kind):
        names.append(os.path.basename(file.name))
        return original(file, kind)

    monkeypatch.setattr(verified_files.hashlib, "file_digest", digest)
    return names


def flip(path, *, place=-7, keep_times=False):
    """Another bit in the same file, as a bad memory card has it, or as an editor that sets the times back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(place, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(place, os.SEEK_END)
        file.write(bytes([byte ^ 16]))
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja", "decoder.onnx", WEIGHTS])
def test_a_flipped_bit_is_found_when_a_bundle_is_loaded(capsys, own_bundle, name):
    flip(own_bundle / name)
    with pytest.raises(BundleError, match=f"{name} is damaged: its SHA-256 differs; copy the bundle again"):
        triform.load(own_bundle)
    code, out, err = invoke(capsys, "generate", own_bundle, "a")
    assert (code, out) == (1, "")
    assert f"{name} is damaged" in one_line(err)


def test_weights_are_hashed_once(own_bundle, later, hashed, cache):
    bundle = open_bundle(own_bundle)
    small = [name for name in bundle.manifest.files if name != WEIGHTS]
    check_files(bundle, "once")
    assert sorted(hashed) == sorted([*small, WEIGHTS])
    assert len(list(cache.iterdir())) == 1
    hashed.clear()
    check_files(bundle, "once")
    assert sorted(hashed) == sorted(small)
    hashed.clear()
    check_files(bundle, "always")
    assert sorted(hashed) == sorted([*small, WEIGHTS])
    hashed.clear()
    check_files(bundle, "never")
    assert hashed == []


@pytest.mark.parametrize("keep_times", [False, True])
def test_weights_that_change_are_hashed_again(own_bundle, later, keep_times):
    check_files(open_bundle(own_bundle), "once")
    flip(own_bundle / WEIGHTS, keep_times=keep_times)
    with pytest.raises(BundleError, match=f"{WEIGHTS} is damaged"):
        check_files(open_bundle(own_bundle), "once")


def test_a_damage_is_not_remembered(own_bundle, later, cache):
    flip(own_bundle / WEIGHTS)
    for _ in range(2):
        with pytest.raises(BundleError, match=f"{WEIGHTS} is damaged"):
            check_files(open_bundle(own_bundle), "once")
    assert not cache.exists()
    check_files(open_bundle(own_bundle), "never")


def test_a_file_that_was_written_just_now_is_not_remembered(own_bundle, hashed, cache):
    os.utime(own_bundle / WEIGHTS)
    for _ in range(2):
        check_files(open_bundle(own_bundle), "once")
    assert hashed.count(WEIGHTS) == 2
    assert not cache.exists()


def test_without_a_place_to_remember(own_bundle, later, hashed, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    for place in (str(tmp_path / "file"), "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", place)
        monkeypatch.setenv("HOME", str(tmp_path / "file"))
        hashed.clear()
        check_files(open_bundle(own_bundle), "once")
        assert WEIGHTS in hashed


def test_no_more_than_a_thousand_files_are_remembered(own_bundle, later, cache, monkeypatch):
    cache.mkdir(parents=True)
    for number in range(3):
        (cache / str(number)).touch()
        os.utime(cache / str(number), (number, number))
    monkeypatch.setattr(verified_files, "_MOST", 2)
    check_files(open_bundle(own_bundle), "once")
    kept = {path.name for path in cache.iterdir()}
    assert len(kept) == 2
    assert "2" in kept


def test_the_option(capsys, own_bundle):
    flip(own_bundle / "decoder.onnx.data")
    assert invoke(capsys, "generate", own_bundle, "a", "--max-new-tokens", 1, "--verify", "never")[0] == 0
    code, _, err = invoke(capsys, "generate", own_bundle, "a", "--verify", "always")
    assert (code, WEIGHTS in one_line(err)) == (1, True)
    code, _, err = invoke(capsys, "generate", own_bundle, "a", "--verify", "sometimes")
    assert (code, "--verify" in one_line(err)) == (2, True)
    with pytest.raises(InputError, match="`verify` must be always, once or never, not 'sometimes'"):
        triform.load(own_bundle, verify="sometimes")


def test_tokens_reads_the_tokenizer_only(capsys, own_bundle):
    flip(own_bundle / WEIGHTS)
    assert invoke(capsys, "tokens", own_bundle, "a b")[0] == 0
    flip(own_bundle / "tokenizer.json", place=-2)
    code, _, err = invoke(capsys, "tokens", own_bundle, "a b")
    assert (code, "tokenizer.json is damaged" in one_line(err)) == (1, True)
