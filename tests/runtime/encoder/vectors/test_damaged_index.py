"""A search index whose files are not what was written is refused, whichever bit is another."""

from __future__ import annotations

import hashlib
import json
import random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triform.runtime.bundle.manifest import FileInfo
from triform.runtime.encoder.vectors.search_index import Document, SearchIndex, build_index
from triform.runtime.errors import InputError
from triform.runtime.opening import load_encoder

FILES = ("index.json", "vectors.npy", "texts.jsonl", "offsets.bin")
TEXTS = ["A ferry.", "Rain on the harbor, all day long.", "Straße", "nets and ropes"]
QUERIES = np.eye(3, 48, dtype=np.float32)


@pytest.fixture(scope="module")
def made(sentence_bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "made"
    documents = [Document(number, text) for number, text in enumerate(TEXTS, 1)]
    build_index(folder, load_encoder(sentence_bundle), documents, prompt="", field=None, source=FileInfo(1, "0" * 64))
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture
def written(tmp_path):
    def write(files):
        for name, content in files.items():
            (tmp_path / name).write_bytes(content)
        return tmp_path

    return write


def resealed(files):
    """The same files with an index.json whose hashes agree with them, as docs/bundle.md's manifest has its own."""
    info = json.loads(files["index.json"])
    for name in FILES[1:]:
        info["files"][name] = {"size": len(files[name]), "sha256": hashlib.sha256(files[name]).hexdigest()}
    text = json.dumps({**info, "index_sha256": ""})
    before, mark, after = text.rpartition('"index_sha256": "')
    digest = hashlib.sha256(f"{before}{mark}{64 * '0'}{after}".encode()).hexdigest()
    return {**files, "index.json": f"{before}{mark}{digest}{after}".encode()}


def refusal(folder, verify="once"):
    with pytest.raises(InputError) as caught:
        SearchIndex(folder, verify).search(QUERIES, 2)
    assert str(caught.value).isprintable()
    assert "delete it to rebuild it" in str(caught.value)


def test_whole(made, written):
    assert SearchIndex(written(made)).search(QUERIES, 2)
    assert SearchIndex(written(resealed(made)), "always").search(QUERIES, 2)


@pytest.mark.parametrize("name", FILES)
def test_no_bit_can_be_another(made, written, name):
    chosen = random.Random(name).sample(range(8 * len(made[name])), 60)
    for place in chosen:
        content = bytearray(made[name])
        content[place // 8] ^= 1 << place % 8
        refusal(written({**made, name: bytes(content)}))


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_cut_off(made, written, name):
    for length in sorted({0, 1, len(made[name]) // 2, len(made[name]) - 1}):
        refusal(written({**made, name: made[name][:length]}), "never")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES[1:]), st.integers(0, 10**4), st.binary(min_size=1, max_size=12))
def test_whatever_someone_writes_with_hashes_that_agree(made, written, name, place, content):
    place %= len(made[name])
    other = made[name][:place] + content + made[name][place + len(content) :]
    try:
        hits = SearchIndex(written(resealed({**made, name: other})), "always").search(QUERIES, 2)
    except InputError as error:
        assert str(error).isprintable()
    else:
        assert all(np.isfinite(hit.score) for found in hits for hit in found)


@pytest.mark.parametrize("ends", [[5, 4, 90, 91], [-5, 10, 20, 30], [2**62, 2**62 + 1, 2**62 + 2, 2**62 + 3]])
def test_offsets_that_go_nowhere(made, written, ends):
    refusal(written(resealed({**made, "offsets.bin": np.array(ends, "<i8").tobytes()})))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_vectors_that_are_not_numbers(made, written, value):
    content = bytearray(made["vectors.npy"])
    content[-4 * 48 : -4 * 47] = np.float32(value).tobytes()
    refusal(written(resealed({**made, "vectors.npy": bytes(content)})))


def test_an_index_of_another_version(made, written):
    info = {**json.loads(made["index.json"]), "version": 1}
    refusal(written({**made, "index.json": json.dumps(info).encode()}))
