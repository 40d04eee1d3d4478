"""`triform search` and `triform similarity`, against cosines of what transformers computes."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from tests.helpers.bundles import adopt
from tests.helpers.commands import one_line
from tests.helpers.sentences import MAX_LENGTH, TEXTS, mean_vectors
from triform.runtime.arithmetic import unit
from triform.runtime.encoder.vectors import search as searching
from triform.runtime.encoder.vectors import search_index
from triform.runtime.encoder.vectors.search import nearest
from triform.runtime.encoder.vectors.search_index import Document, SearchIndex, build_index
from triform.runtime.errors import InputError
from triform.runtime.opening import load_encoder

QUERY = "when did the ferry leave"
# Twice the same text: equal scores, which keep their order.
LINES = [*TEXTS, TEXTS[2], "The boats came back at dusk."]
QUERY_PROMPT, DOCUMENT_PROMPT = "Find what answers: ", "Text: "
TOLERANCE = 5e-6


@pytest.fixture(scope="module")
def model(sentence_bundle):
    return load_encoder(sentence_bundle)


def scores(source, query, before=(QUERY_PROMPT, DOCUMENT_PROMPT)):
    """The cosine of the query with each line."""
    vectors = mean_vectors(source, [before[0] + query, *(before[1] + line for line in LINES)])
    return vectors[1:] @ vectors[0]


@pytest.fixture(scope="module")
def expected(sentence_source):
    return scores(sentence_source, QUERY)


@pytest.fixture
def text_file(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(LINES) + "\n")
    return tmp_path / "texts.txt"


def check(found, expected, count):
    """Lines of JSON are the best of `expected`, in order."""
    lines = [json.loads(line) for line in found.splitlines()]
    assert [line["rank"] for line in lines] == list(range(1, count + 1))
    numbers = [line["number"] for line in lines]
    assert len(set(numbers)) == count
    assert [line["text"] for line in lines] == [LINES[number - 1] for number in numbers]
    assert [line["score"] for line in lines] == pytest.approx([expected[n - 1] for n in numbers], abs=TOLERANCE)
    assert [line["score"] for line in lines] == pytest.approx(sorted(expected)[::-1][:count], abs=TOLERANCE)
    return numbers


@pytest.mark.parametrize("top_k", [3, 100])
def test_finds_the_nearest(call, sentence_bundle, expected, text_file, tmp_path, top_k):
    count = min(top_k, len(LINES))
    options = ("search", sentence_bundle, QUERY, "--file", text_file, "--top-k", top_k)
    code, out, err = call(*options, "--json")
    assert (code, err) == (
        0,
        f"note: cut 1 text longer than {MAX_LENGTH} tokens; --strict refuses such texts\n",
    )
    numbers = check(out, expected, count)
    # Made, used again, and used without the file: the same.
    for arguments in (options, options, ("search", sentence_bundle, QUERY, "--top-k", top_k)):
        code, out, _ = call(*arguments, "--index", tmp_path / "index", "--json")
        assert code == 0
        assert check(out, expected, count) == numbers
    code, out, _ = call(*options)
    first = out.splitlines()[0].split("\t")
    assert first == [f"{max(expected):.4f}", str(numbers[0]), " ".join(LINES[numbers[0] - 1].split())]
    assert len(out.splitlines()) == count


def test_equal_texts_keep_their_order(call, sentence_bundle, text_file, tmp_path):
    for more in ([], ["--index", tmp_path / "index"]):
        _, out, _ = call("search", sentence_bundle, "Rain.", "--file", text_file, *more, "--query-prompt", "Text: ")
        assert [line.split("\t")[:2] for line in out.splitlines()[:2]] == [["1.0000", "3"], ["1.0000", "7"]]


@pytest.mark.parametrize(
    ("options", "before"),
    [
        (["--query-prompt", "", "--prompt", ""], ("", "")),
        (["--query-prompt-name", "passage", "--prompt-name", "query"], (DOCUMENT_PROMPT, QUERY_PROMPT)),
    ],
)
def test_prompts(call, sentence_bundle, sentence_source, text_file, tmp_path, options, before):
    expected = scores(sentence_source, QUERY, before)
    for more in ([], ["--index", tmp_path / "index"], ["--index", tmp_path / "index"]):
        _, out, _ = call("search", sentence_bundle, QUERY, "--file", text_file, *options, *more, "--json")
        check(out, expected, len(LINES))
    index = ("--index", tmp_path / "index")
    code, _, err = call("search", sentence_bundle, QUERY, *index, "--prompt", "Other: ")
    assert code == 2
    assert f"was made with the prompt {before[1]!r}, not 'Other: '" in one_line(err)


def test_json_objects(call, sentence_bundle, expected, tmp_path):
    objects = [{"id": index, "body": line, "rest": [1]} for index, line in enumerate(LINES)]
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in objects))
    options = ("search", sentence_bundle, QUERY, "--file", file, "--field", "body", "--top-k", 2)
    best = sorted(range(len(LINES)), key=lambda index: -expected[index])[:2]
    for more in ([], ["--index", tmp_path / "index"], ["--index", tmp_path / "index"]):
        _, out, _ = call(*options, *more, "--json")
        lines = [json.loads(line) for line in out.splitlines()]
        assert [{key: line[key] for key in objects[0]} for line in lines] == [objects[index] for index in best]
    _, out, _ = call("search", sentence_bundle, QUERY, "--index", tmp_path / "index", "--top-k", 1)
    assert out.split("\t")[2] == " ".join(LINES[best[0]].split()) + "\n"
    code, _, err = call(
        "search", sentence_bundle, QUERY, "--file", file, "--field", "id", "--index", tmp_path / "index"
    )
    assert code == 2
    assert "another field" in one_line(err)


def test_searches_standard_input(call, sentence_bundle, expected, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(LINES)))
    _, out, _ = call("search", sentence_bundle, QUERY, "--json")
    check(out, expected, len(LINES))


QUERIES = [QUERY, "two boats", "Rain.", "two boats"]


def check_many(out, source, objects):
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == len(objects)
    for line, query, one in zip(lines, QUERIES, objects, strict=True):
        results = line.pop("results")
        assert line == one
        check("".join(json.dumps(result) + "\n" for result in results), scores(source, query), 3)


def test_many_queries(call, sentence_bundle, sentence_source, text_file, tmp_path, monkeypatch):
    (tmp_path / "queries.txt").write_text("".join(f"{query}\n" for query in QUERIES))
    objects = [{"id": index, "question": query} for index, query in enumerate(QUERIES)]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(one) + "\n" for one in objects))
    options = ("search", sentence_bundle, "--top-k", 3, "--queries")
    plain, stored = [{"query": query} for query in QUERIES], ("--index", tmp_path / "index")
    monkeypatch.setattr(searching, "_QUERIES", 3)
    for more in (["--file", text_file], ["--file", text_file, *stored], stored):
        code, out, _ = call(*options, tmp_path / "queries.txt", *more)
        assert code == 0
        check_many(out, sentence_source, plain)
    _, out, _ = call(*options, tmp_path / "queries.jsonl", "--query-field", "question", *stored)
    check_many(out, sentence_source, objects)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(QUERIES)))
    _, out, _ = call(*options, "-", *stored)
    check_many(out, sentence_source, plain)
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(LINES)))
    _, out, _ = call(*options, tmp_path / "queries.txt")
    check_many(out, sentence_source, plain)


def test_no_queries_have_no_results(call, sentence_bundle, text_file, tmp_path):
    (tmp_path / "none.txt").write_text("")
    options = ("search", sentence_bundle, "--queries", tmp_path / "none.txt", "--file", text_file)
    assert call(*options) == (0, "", "")


def test_damaged_queries(call, sentence_bundle, text_file, tmp_path):
    (tmp_path / "queries.txt").write_bytes(b"good\n\xff\n")
    options = ("search", sentence_bundle, "--queries", tmp_path / "queries.txt", "--file", text_file)
    code, out, err = call(*options)
    assert (code, len(out.splitlines())) == (2, 1)
    assert "queries.txt: it is not UTF-8" in err.splitlines()[-1]
    code, out, err = call(*options, "--skip-errors")
    assert (code, len(out.splitlines())) == (0, 1)
    assert "note: skipped 1 input that could not be used" in err


def test_an_index_goes_with_its_file_and_its_bundle(call, sentence_bundle, text_file, tmp_path):
    options = ("--file", text_file, "--index", tmp_path / "index")
    assert call("search", sentence_bundle, QUERY, *options)[0] == 0
    other = shutil.copytree(sentence_bundle, tmp_path / "bundle")
    adopt(other, "tokenizer.json", (other / "tokenizer.json").read_bytes() + b"\n")
    code, out, err = call("search", other, QUERY, *options)
    assert (code, out) == (2, "")
    assert "was made with another bundle; delete it" in one_line(err)
    # As long as it was.
    text_file.write_text(text_file.read_text().replace("Rain", "Wind"))
    code, out, err = call("search", sentence_bundle, QUERY, *options)
    assert (code, out) == (2, "")
    assert "texts.txt is not what" in one_line(err)


def broken_meta(folder):
    (folder / "index.json").write_text("{")


def cut_vectors(folder):
    np.save(folder / "vectors.npy", np.load(folder / "vectors.npy")[:-1])


def half_vectors(folder):
    (folder / "vectors.npy").write_bytes((folder / "vectors.npy").read_bytes()[:-500])


def cut_offsets(folder):
    (folder / "offsets.bin").write_bytes((folder / "offsets.bin").read_bytes()[:-8])


def cut_texts(folder):
    (folder / "texts.jsonl").write_bytes(b"")


def empty(folder):
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize("damage", [broken_meta, cut_vectors, half_vectors, cut_offsets, cut_texts, empty])
def test_a_damaged_index(call, sentence_bundle, text_file, tmp_path, damage):
    options = ("search", sentence_bundle, QUERY, "--file", text_file, "--index", tmp_path / "index")
    assert call(*options)[0] == 0
    damage(tmp_path / "index")
    code, out, err = call(*options)
    assert (code, out) == (2, "")
    assert "delete it to rebuild it" in one_line(err)


def test_an_index_is_whole_or_not_there(call, sentence_bundle, tmp_path):
    (tmp_path / "texts.txt").write_bytes(b"good\n\xff\n")
    options = ("search", sentence_bundle, QUERY, "--file", tmp_path / "texts.txt", "--index", tmp_path / "index")
    assert call(*options)[0] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["texts.txt"]
    code, out, err = call(*options, "--skip-errors")
    assert (code, len(out.splitlines())) == (0, 1)
    assert err.startswith("note: skipped 1 input that could not be used")


def test_an_index_is_searched_in_parts(model, tmp_path, monkeypatch):
    documents = [Document(number, text) for number, text in enumerate(LINES, 1)]
    build_index(tmp_path / "index", model, documents, prompt="")
    queries = unit(model.embed([QUERY, TEXTS[2], "fish"]))
    monkeypatch.setattr(search_index, "_BLOCK", 3)
    monkeypatch.setattr(searching, "_DOCUMENTS", 2)
    found = SearchIndex(tmp_path / "index").search(queries, 4)
    streamed = nearest(model, queries, documents, prompt="", top_k=4)
    every = queries @ unit(model.embed(LINES)).T
    # Stable: the text that is there twice keeps its order.
    expected = np.argsort(-every.round(6), axis=1, kind="stable")[:, :4]
    for one, other, places, scores in zip(found, streamed, expected, every, strict=True):
        for hits in (one, other):
            assert [hit.document.number - 1 for hit in hits] == places.tolist()
            assert [hit.score for hit in hits] == pytest.approx(scores[places].tolist(), abs=1e-6)
    with pytest.raises(InputError, match="exists already"):
        build_index(tmp_path / "index", model, documents, prompt="")


@pytest.mark.parametrize(("verify", "once"), [(None, {True}), ("once", {True}), ("always", {False}), ("never", set())])
def test_files_are_hashed_once_always_or_never(model, tmp_path, monkeypatch, verify, once):
    documents = [Document(number, text) for number, text in enumerate(LINES, 1)]
    build_index(tmp_path / "index", model, documents, prompt="")
    asked, hashed = [], search_index.is_whole_file

    def is_whole_file(path, sha256, *, once):
        asked.append((path.name, once))
        return hashed(path, sha256, once=once)

    monkeypatch.setattr(search_index, "is_whole_file", is_whole_file)
    options = {} if verify is None else {"verify": verify}
    SearchIndex(tmp_path / "index", **options)
    assert {each for _, each in asked} == once and len(asked) == 3 * len(once)
    # Other numbers of the same size.
    vectors = tmp_path / "index" / "vectors.npy"
    vectors.write_bytes(vectors.read_bytes()[:-1] + b"\x01")
    if not once:
        SearchIndex(tmp_path / "index", **options)
        return
    with pytest.raises(InputError, match="is damaged; delete it to rebuild it"):
        SearchIndex(tmp_path / "index", **options)


def test_from_python(model, sentence_source, tmp_path):
    expected = [scores(sentence_source, query) for query in (QUERY, "two boats")]
    for documents in (LINES, model.build_search_index(tmp_path / "index", LINES)):
        found = model.search([QUERY, "two boats"], documents, top_k=3)
        for hits, cosines_of in zip(found, expected, strict=True):
            best = np.argsort(-cosines_of, kind="stable")[:3]
            assert [hit.document.text for hit in hits] == [LINES[place] for place in best]
            assert [hit.score for hit in hits] == pytest.approx(cosines_of[best].tolist(), abs=TOLERANCE)
    (hits,) = model.search([QUERY], iter(LINES), query_prompt="", document_prompt="", top_k=100)
    assert len(hits) == len(LINES)
    assert hits[0].score == pytest.approx(max(scores(sentence_source, QUERY, ("", ""))), abs=TOLERANCE)
    assert model.search([], LINES) == []


def test_an_index_from_python_is_the_command_line_s_too(call, model, sentence_bundle, expected, text_file, tmp_path):
    model.build_search_index(tmp_path / "index", LINES)
    arguments = ("search", sentence_bundle, QUERY, "--index", tmp_path / "index", "--top-k", 3)
    _, out, _ = call(*arguments, "--json")
    check(out, expected, 3)
    # It came from no file, so that it cannot be compared with one.
    code, _, err = call(*arguments, "--file", text_file)
    assert code == 2
    assert "texts.txt is not what" in one_line(err)


def test_what_python_refuses(model, tmp_path):
    model.build_search_index(tmp_path / "index", LINES, prompt="Other: ")
    index = model.open_search_index(tmp_path / "index")
    with pytest.raises(InputError, match="was made with the prompt 'Other: ', not 'Text: '"):
        model.search([QUERY], index, document_prompt="Text: ")
    with pytest.raises(InputError, match=r"^`top_k` must be at least 1, not 0$"):
        model.search([QUERY], index, top_k=0)
    with pytest.raises(InputError, match="index exists already"):
        model.build_search_index(tmp_path / "index", LINES)
    with pytest.raises(InputError, match="there are no texts to search"):
        model.build_search_index(tmp_path / "empty", [])
    assert not (tmp_path / "empty").exists()


def test_similarity_from_python(model, sentence_source):
    vectors = mean_vectors(sentence_source, TEXTS[:3])
    np.testing.assert_allclose(model.similarity(TEXTS[:3]), vectors @ vectors.T, atol=TOLERANCE)
    np.testing.assert_allclose(model.similarity(TEXTS[:2], TEXTS[2:3]), vectors[:2] @ vectors[2:].T, atol=TOLERANCE)
    assert model.similarity([], TEXTS[:2]).shape == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([QUERY, "--top-k", "0"], "--top-k must be at least 1"),
        ([], "no query"),
        ([QUERY, "--queries", "{file}"], "a query or --queries, not both"),
        ([QUERY, "--query-field", "a", "--file", "{file}"], "--query-field needs --queries"),
        (["--queries", "-"], "standard input is either the queries or the texts"),
        (["--queries", "nowhere.txt", "--file", "{file}"], "nowhere.txt cannot be read"),
        ([QUERY, "--file", "nowhere.txt"], "nowhere.txt cannot be read"),
        ([QUERY, "--index", "nowhere"], "nowhere does not exist: give --file"),
        ([QUERY, "--file", "{file}", "--index", "nowhere/index"], "nowhere/index cannot be made"),
        ([QUERY, "--file", "{file}", "--query-prompt-name", "gone"], "no prompt called 'gone'"),
        ([QUERY, "--file", "{file}", "--prompt-name", "gone"], "no prompt called 'gone'"),
        ([QUERY, "--file", "{file}", "--strict"], "text 4 is longer"),
        (["word " * 500, "--file", "{file}", "--strict"], "text 1 is longer"),
        ([QUERY, "--file", "{empty}", "--index", "index"], "no texts to search"),
    ],
)
def test_bad_input(call, sentence_bundle, text_file, tmp_path, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("")
    places = {"file": text_file, "empty": tmp_path / "empty.txt"}
    code, out, err = call("search", sentence_bundle, *(argument.format(**places) for argument in arguments))
    assert (code, out) == (2, "")
    assert text in one_line(err)


@pytest.mark.parametrize("command", [["search", QUERY], ["similarity", "a", "b"]])
def test_a_decoder_has_no_vectors(call, float_bundle, text_file, command):
    name, *rest = command
    code, out, err = call(name, float_bundle, *rest)
    assert (code, out) == (1, "")
    assert "use `triform generate`" in one_line(err)


def cosines(source, pairs):
    vectors = mean_vectors(source, [text for pair in pairs for text in pair])
    return [float(left @ right) for left, right in zip(vectors[::2], vectors[1::2], strict=True)]


PAIRS = [(TEXTS[0], TEXTS[5]), (TEXTS[2], TEXTS[2]), (TEXTS[4].replace("\t", " "), "")]


def test_similarity_of_two_texts(call, sentence_bundle, sentence_source):
    (expected,) = cosines(sentence_source, PAIRS[:1])
    assert call("similarity", sentence_bundle, *PAIRS[0]) == (0, f"{expected:.4f}\n", "")
    _, out, _ = call("similarity", sentence_bundle, *PAIRS[0], "--json")
    found = json.loads(out)
    assert found == {"text1": PAIRS[0][0], "text2": PAIRS[0][1], "similarity": pytest.approx(expected, abs=TOLERANCE)}
    (expected,) = cosines(sentence_source, [tuple(QUERY_PROMPT + text for text in PAIRS[0])])
    assert call("similarity", sentence_bundle, *PAIRS[0], "--prompt-name", "query")[1] == f"{expected:.4f}\n"


def test_similarity_of_many_texts(call, sentence_bundle, sentence_source):
    vectors = mean_vectors(sentence_source, TEXTS[:3])
    _, out, _ = call("similarity", sentence_bundle, *TEXTS[:3], "--json")
    found = json.loads(out)
    assert found["texts"] == TEXTS[:3]
    np.testing.assert_allclose(found["similarities"], vectors @ vectors.T, atol=TOLERANCE)
    _, out, _ = call("similarity", sentence_bundle, *TEXTS[:3])
    printed = np.array([line.split("\t") for line in out.splitlines()], float)
    np.testing.assert_allclose(printed, vectors @ vectors.T, atol=6e-5)


def test_similarity_of_pairs(call, sentence_bundle, sentence_source, tmp_path, monkeypatch):
    expected = cosines(sentence_source, PAIRS)
    rounded = "".join(f"{score:.4f}\n" for score in expected)
    (tmp_path / "pairs.tsv").write_text("".join("\t".join(pair) + "\n" for pair in PAIRS))
    assert call("similarity", sentence_bundle, "--file", tmp_path / "pairs.tsv") == (0, rounded, "")
    monkeypatch.setattr(sys, "stdin", io.StringIO((tmp_path / "pairs.tsv").read_text()))
    assert call("similarity", sentence_bundle, "--file", "-") == (0, rounded, "")
    objects = [{"id": index, "a": left, "b": right} for index, (left, right) in enumerate(PAIRS)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(one) + "\n" for one in objects))
    options = ("similarity", sentence_bundle, "--file", tmp_path / "pairs.jsonl", "--fields", "a,b")
    assert call(*options) == (0, rounded, "")
    _, out, _ = call(*options, "--json")
    for line, one, score in zip(out.splitlines(), objects, expected, strict=True):
        assert json.loads(line) == {**one, "similarity": pytest.approx(score, abs=TOLERANCE)}


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("pairs.tsv", "a\tb\nalone\na\tb\n", "line 2 of pairs.tsv: it is not two texts separated by a tab"),
        ("pairs.tsv", "a\tb\na\tb\tc\na\tb\n", "line 2 of pairs.tsv: it is not two texts separated by a tab"),
        (
            "pairs.jsonl",
            '{"text1": "a", "text2": "b"}\n{"text1": "a"}\n',
            "line 2 of pairs.jsonl: it is not an object with",
        ),
        (
            "pairs.jsonl",
            '{"text1": "a", "text2": "b"}\n{"text2": "a"}\n',
            "line 2 of pairs.jsonl: it is not an object with",
        ),
        ("pairs.jsonl", '{"text1": "a", "text2": "b"}\n{"text1": "a", "text2": "\\ud800"}\n', "is not valid Unicode"),
    ],
)
def test_damaged_pairs(call, sentence_bundle, tmp_path, monkeypatch, name, content, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(content)
    code, out, err = call("similarity", sentence_bundle, "--file", name)
    # What comes before the damaged line is finished first.
    assert (code, len(out.splitlines())) == (2, 1)
    assert text in one_line(err)
    code, out, err = call("similarity", sentence_bundle, "--file", name, "--skip-errors")
    assert (code, len(out.splitlines())) == (0, len(content.splitlines()) - 1)
    assert err.startswith("note: skipped 1 input that could not be used; the first is line 2 of")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["alone"], "nothing to compare"),
        ([], "nothing to compare"),
        (["a", "b", "--file", "x.tsv"], "not both"),
        (["--file", "nowhere.tsv"], "nowhere.tsv cannot be read"),
        (["--file", "nowhere.tsv", "--fields", "one"], "--fields must be two names"),
        (["a", "b", "--prompt", "x", "--prompt-name", "query"], "not both"),
        (["a", "word " * 500, "--strict"], "text 2 is longer"),
    ],
)
def test_bad_comparisons(call, sentence_bundle, arguments, text):
    code, out, err = call("similarity", sentence_bundle, *arguments)
    assert (code, out) == (2, "")
    assert text in one_line(err)


def test_an_index_does_not_fit_a_bundle_that_cuts_texts_elsewhere(sentence_bundle):
    manifest = load_encoder(sentence_bundle).manifest
    shorter = dataclasses.replace(manifest, max_length=manifest.max_length - 1)
    one, same, other = (
        search_index.fingerprint(SimpleNamespace(manifest=each))
        for each in (manifest, dataclasses.replace(manifest), shorter)
    )
    assert one == same != other
