"""Static embeddings: the vectors of a bundle are the means that numpy takes of the table it was made from."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from tests.helpers.commands import invoke, one_line
from triform.export.checkpoint.sentence.static_vectors import read_table
from triform.export.options import ExportOptions
from triform.export.pipeline import export, plan
from triform.runtime.errors import ExportError, InputError
from triform.runtime.opening import load_encoder

WORDS = ["the", "cat", "sat", "on", "mat", "don't", "e-mail", "naïve", "日本", ",", ".", "new_york", "...", "a\u00a0b"]
# Not a multiple of a block of quantized numbers.
DIMENSION = 50
TEXTS = [
    "The cat sat on the mat.",
    "the  the\tCAT , \n naïve 日本",
    "zebra quux",
    "the zebra, on...",
    "don't e-mail New_York",
    "",
    "mat",
]


def vectors(rows=14, dimension=DIMENSION):
    return np.random.default_rng(0).normal(size=(rows, dimension)).astype(np.float32)


def word_lines(table, words=WORDS):
    return [f"{word} {' '.join(map(str, row))}" for word, row in zip(words, table, strict=True)]


def words_of(text):
    """Words between spaces, without the punctuation at their ends, which stands alone."""
    for piece in text.lower().split():
        found = re.fullmatch(r"([^\w\s]*)(.*?)([^\w\s]*)", piece)
        yield from (part for part in found.groups() if part)


def mean_of(table, text, words=WORDS):
    known = [table[words.index(word)] for word in words_of(text) if word in words]
    return np.mean(known, axis=0) if known else np.zeros(table.shape[1])


@pytest.fixture(scope="module")
def words_bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    lines = [f"{len(WORDS)} {DIMENSION}", *word_lines(vectors())]
    (folder / "tiny.vec").write_text("\n".join(lines) + "\n", encoding="utf-8")
    export(str(folder / "tiny.vec"), folder / "bundle", ExportOptions(quantize="none"))
    return folder / "bundle"


def test_words_are_averaged(words_bundle):
    encoder = load_encoder(words_bundle)
    found = encoder.embed(TEXTS)
    expected = np.array([mean_of(vectors(), text) for text in TEXTS])
    assert found.shape == (len(TEXTS), DIMENSION)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # Two of the texts have no known word.
    assert [bool(row.any()) for row in found] == [True, True, False, True, True, False, True]


def test_a_row_does_not_depend_on_its_batch(words_bundle):
    encoder = load_encoder(words_bundle)
    together = encoder.embed(TEXTS)
    alone = np.concatenate([encoder.embed([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-7)


def test_manifest_says_what_it_is(words_bundle):
    manifest = load_encoder(words_bundle).manifest
    assert (manifest.form, manifest.task, manifest.model_type) == ("encoder", "feature-extraction", "static")
    assert manifest.vocab_size == len(WORDS) + 1
    assert manifest.encoder.embedding.dimension == DIMENSION
    assert manifest.encoder.embedding.pooling == "mean"
    assert not manifest.encoder.embedding.normalized


@pytest.mark.parametrize("name", ["int8", "int4"])
def test_quantized_table(name, tmp_path):
    (tmp_path / "tiny.txt").write_text("\n".join(word_lines(vectors())), encoding="utf-8")
    report = export(str(tmp_path / "tiny.txt"), tmp_path / "bundle", ExportOptions(quantize=name))
    encoder = load_encoder(tmp_path / "bundle")
    assert encoder.manifest.graphs["encoder"].operators["GatherBlockQuantized"] == 1
    assert encoder.manifest.graphs["encoder"].operators.get("Gather", 0) == 0
    texts = [text for text in TEXTS if mean_of(vectors(), text).any()]
    found, expected = encoder.embed(texts), np.array([mean_of(vectors(), text) for text in texts])
    assert found.shape == expected.shape
    # Uniform rounding to 2^bits levels over a block's range is off by half a level at most.
    bits = {"int8": 8, "int4": 4}[name]
    level = (vectors().max() - vectors().min()) / (2**bits - 1)
    assert 0 < np.abs(found - expected).max() <= 1.5 * level
    assert report.parity.quantized.cosine_worst > {"int8": 0.9999, "int4": 0.98}[name]


@pytest.mark.parametrize("name", ["none", "int8"])
def test_verified_against_its_source(capsys, name, tmp_path):
    folder = model2vec_folder(tmp_path / "potion", vectors(11, 48), normalize=True)
    export(str(folder), tmp_path / "bundle", ExportOptions(quantize=name))
    code, out, _ = invoke(capsys, "verify", tmp_path / "bundle", "--against", folder, "--json")
    parity = json.loads(out)["parity"]
    assert code == 0
    recorded = load_encoder(tmp_path / "bundle").manifest.export.encoder_parity
    if name == "none":
        assert parity["batch"] <= parity["tolerance"]
        assert parity["quantized"] is None
    else:
        # Against PyTorch's float32 here, against the float graph then.
        assert parity["quantized"]["cosine_worst"] == pytest.approx(recorded.quantized.cosine_worst, abs=1e-6)
        assert parity["batch"] > 1e-5
        # As many rows as docs/gpu.md says of texts.
        assert parity["quantized"]["rows"] == recorded.quantized.rows == 48
    other = model2vec_folder(tmp_path / "other", vectors(12, 48), normalize=True)
    code, _, err = invoke(capsys, "verify", tmp_path / "bundle", "--against", other)
    assert (code, "it has 12 vectors of 48 numbers, not 11 of 48" in one_line(err)) == (1, True)


def test_other_words_do_not_match(capsys, words_bundle, tmp_path):
    (tmp_path / "w.vec").write_text("\n".join(word_lines(vectors() + 0.01)), encoding="utf-8")
    code, _, err = invoke(capsys, "verify", words_bundle, "--against", tmp_path / "w.vec")
    assert (code, "outputs differ by 0.01, and" in one_line(err)) == (1, True)


def model2vec_folder(folder, table, *, normalize, **tensors):
    """As model2vec saves it: a WordPiece tokenizer of a sentence transformer, without special tokens in use."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cat", "##s", "sat", "on", "the", "mat", "."]
    tokenizer = Tokenizer(models.WordPiece({word: index for index, word in enumerate(vocabulary)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    # What a tokenizer of a sentence transformer comes with; model2vec switches both off.
    tokenizer.enable_padding(length=16)
    tokenizer.enable_truncation(4)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file({"embeddings": table, **tensors}, folder / "model.safetensors")
    config = {"model_type": "model2vec", "architectures": ["StaticModel"], "normalize": normalize, "max_length": 6}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


TOKENS = {
    "cats sat": [4, 5, 6],
    "the dog sat.": [8, 6, 10],
    "on the mat on the mat": [7, 8, 9, 7, 8, 9],
    "dog": [],
    "": [],
}


@pytest.mark.parametrize(("normalize", "dtype"), [(False, np.float32), (True, np.float16), (True, np.int8)])
def test_model2vec(normalize, dtype, tmp_path):
    table = (20 * vectors(11, 48)).astype(dtype)
    folder = model2vec_folder(tmp_path / "potion", table, normalize=normalize)
    export(str(folder), tmp_path / "bundle", ExportOptions(quantize="none"))
    encoder = load_encoder(tmp_path / "bundle")
    expected = np.array([
        table[ids].astype(np.float64).mean(0) if ids else np.zeros(48) for ids in TOKENS.values()
    ])  # fmt: skip
    if normalize:
        expected /= np.linalg.norm(expected, axis=1, keepdims=True) + 1e-32
    np.testing.assert_allclose(encoder.embed(list(TOKENS)), expected, atol=1e-5)
    assert encoder.info.embedding.normalized is normalize


def test_model2vec_cuts_where_its_config_says(tmp_path):
    folder = model2vec_folder(tmp_path / "potion", vectors(11, 48), normalize=False)
    export(str(folder), tmp_path / "bundle", ExportOptions(quantize="none"))
    found = load_encoder(tmp_path / "bundle").embed(["on the mat on the mat . . . ."])
    np.testing.assert_allclose(found[0], vectors(11, 48)[[7, 8, 9, 7, 8, 9]].mean(0), atol=1e-6)


def test_model2vec_with_shared_rows_and_weights(tmp_path):
    mapping, weights = np.array([0, 0, 1, 1, 2, 3, 3, 2, 1, 0, 3]), np.linspace(0.5, 2, 11)
    folder = model2vec_folder(tmp_path / "potion", vectors(4, 48), normalize=False, mapping=mapping, weights=weights)
    table = read_table(folder)
    np.testing.assert_allclose(table.vectors.numpy(), vectors(4, 48)[mapping] * weights[:, None], rtol=1e-6)


def static_folder(folder, table, *, kinds=("StaticEmbedding",), name="embedding.weight", **config):
    """As sentence-transformers saves it: no config.json, and the table in a folder of its own."""
    model2vec_folder(folder, table, normalize=False)
    place = folder / "0_StaticEmbedding"
    place.mkdir()
    (folder / "tokenizer.json").rename(place / "tokenizer.json")
    tokenizer = Tokenizer.from_file(str(place / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.save(str(place / "tokenizer.json"))
    save_file({name: table}, place / "model.safetensors")
    for file in ("config.json", "model.safetensors"):
        (folder / file).unlink()
    modules = [
        {"idx": index, "name": str(index), "path": f"{index}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "config_sentence_transformers.json").write_text(json.dumps(config))
    return folder


def ids_with_unknown(text):
    """What the tokenizer of `model2vec_folder` makes of it, where 1 stands for words it does not know."""
    known = {"cats": [4, 5], "cat": [4], "sat": [6], "on": [7], "the": [8], "mat": [9], ".": [10]}
    return [id for word in re.findall(r"\w+|[^\w\s]", text) for id in known.get(word, [1])]


@pytest.mark.parametrize("kinds", [("StaticEmbedding",), ("StaticEmbedding", "Normalize")])
def test_sentence_transformers_static(kinds, tmp_path):
    """The mean of all of a text's vectors, that for unknown words included, as torch.nn.EmbeddingBag takes it."""
    table = vectors(11, 48)
    folder = static_folder(tmp_path / "static", table, kinds=kinds, prompts={"query": "the mat "})
    export(str(folder), tmp_path / "bundle", ExportOptions(quantize="none"))
    encoder = load_encoder(tmp_path / "bundle")
    texts = [*TOKENS, "on the mat . " * 30]

    def expected(before):
        rows = [ids_with_unknown(before + text) for text in texts]
        found = np.array([table[ids].astype(np.float64).mean(0) if ids else np.zeros(48) for ids in rows])
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12) if len(kinds) > 1 else found

    np.testing.assert_allclose(encoder.embed(texts), expected(""), atol=1e-6)
    np.testing.assert_allclose(encoder.embed(texts, prompt_name="query"), expected("the mat "), atol=1e-6)
    assert encoder.info.embedding.normalized is (len(kinds) > 1)
    assert encoder.rows.truncated == 0


def test_sentence_transformers_static_that_is_refused(tmp_path):
    more = static_folder(tmp_path / "more", vectors(11, 48), kinds=("StaticEmbedding", "Dense"))
    with pytest.raises(ExportError, match="in an order that is not supported: StaticEmbedding, Dense"):
        export(str(more), tmp_path / "bundle", ExportOptions())
    other = static_folder(tmp_path / "other", vectors(11, 48), name="weight")
    with pytest.raises(ExportError, match="no readable tensor called embeddings"):
        export(str(other), tmp_path / "bundle", ExportOptions())


def refused(folder, content):
    path = folder / "bad.vec"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ExportError) as caught:
        export(str(path), folder / "bundle", ExportOptions())
    assert "\n" not in str(caught.value)
    assert not (folder / "bundle").exists()
    return str(caught.value)


def test_bad_lines_are_named(tmp_path):
    assert "line 2 repeats 'a' of line 1" in refused(tmp_path, "a 1 2 3\na 4 5 6\n")
    assert "line 3 has something other than 3 numbers" in refused(tmp_path, "a 1 2 3\nb 4 5 6\nc 7 x 9\n")
    assert "line 2 is not a word and 3 numbers" in refused(tmp_path, "a 1 2 3\n4 5 6\n")
    assert "line 2 is not a word and 3 numbers" in refused(tmp_path, "a 1 2 3\n\nb 4 5 6\n")
    assert "line 2 is not UTF-8" in refused(tmp_path, b"a 1 2 3\n\xff 4 5 6\n")
    assert "line 1 has a number that is not finite" in refused(tmp_path, "a 1 nan 3\n")
    assert "says 3 words, but it has 2" in refused(tmp_path, "3 2\na 1 2\nb 3 4\n")
    assert "it has no words" in refused(tmp_path, "0 5\n")
    assert "nor one of word vectors" in refused(tmp_path, "")
    assert "nor one of word vectors" in refused(tmp_path, "only words\n")
    many = refused(tmp_path, "a 1 2 3\n" + "a 1 2 3\n" * 6)
    assert "line 4 repeats" in many
    assert many.endswith("and 3 more like these")


def test_words_may_hold_spaces(tmp_path):
    (tmp_path / "glove.txt").write_text("the 1 2\n. . 3 4\n", encoding="utf-8")
    table = read_table(tmp_path / "glove.txt")
    assert table.vectors.tolist() == [[1, 2], [3, 4], [0, 0]]
    assert table.tokenizer.get_vocab()[". ."] == 1


def test_capitals_are_kept_where_the_file_has_them(tmp_path):
    (tmp_path / "cased.txt").write_text("Paris 1 2\nparis 3 4\n", encoding="utf-8")
    table = read_table(tmp_path / "cased.txt")
    assert table.tokenizer.encode("Paris paris PARIS", add_special_tokens=False).ids == [0, 1, 2]


def test_model2vec_damaged(tmp_path):
    folder = model2vec_folder(tmp_path / "a", vectors(10, 48), normalize=True)
    with pytest.raises(ExportError, match=r"tokenizer\.json has 11 tokens, but model\.safetensors vectors for 10"):
        export(str(folder), tmp_path / "bundle", ExportOptions())
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ExportError, match=r"tokenizer\.json cannot be read"):
        export(str(folder), tmp_path / "bundle", ExportOptions())
    (folder / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ExportError, match=r"no readable tensor called embeddings"):
        export(str(folder), tmp_path / "bundle", ExportOptions())


def test_options_for_other_models_are_refused(tmp_path):
    (tmp_path / "w.txt").write_text("a 1 2\n")
    for options, name in (
        (ExportOptions(task="fill-mask"), "task"),
        (ExportOptions(hidden_states=True), "hidden_states"),
    ):
        with pytest.raises(InputError, match=name):
            export(str(tmp_path / "w.txt"), tmp_path / "bundle", options)


def test_plan(tmp_path):
    (tmp_path / "w.txt").write_text("a 1 2\n")
    rows = dict(plan(str(tmp_path / "w.txt"), ExportOptions()))
    assert (rows["model"], rows["form"], rows["model type"], rows["weights"]) == ("w", "encoder", "static", "int8")
