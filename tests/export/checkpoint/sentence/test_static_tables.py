"""Tables of static vectors: which folders and files are taken for one, and what is wrong with a line."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from triform.export.checkpoint.sentence.static_vectors import StaticTable, is_static, read_table
from triform.runtime.errors import ExportError

STATIC, NORMALIZE = ({"type": f"sentence_transformers.models.{name}"} for name in ("StaticEmbedding", "Normalize"))


@pytest.mark.parametrize(
    ("modules", "static"),
    [
        ([STATIC], True),
        ([STATIC, NORMALIZE], True),
        ([NORMALIZE, STATIC], False),
        ([NORMALIZE], False),
        # What a damaged file may hold.
        ([], False),
        ({}, False),
        ({"0": STATIC}, False),
        ("StaticEmbedding", False),
        ([[STATIC]], False),
        ([None, STATIC], False),
        (None, False),
        (7, False),
    ],
)
def test_the_first_module_says_what_a_folder_is(modules, static, tmp_path):
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert is_static(tmp_path) is static


@pytest.mark.parametrize(
    ("config", "static"), [({"model_type": "model2vec"}, True), ({"model_type": "bert"}, False), ([], False)]
)
def test_the_type_of_model2vec(config, static, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert is_static(tmp_path) is static


@pytest.mark.parametrize(
    ("name", "line", "static"),
    [
        ("a.txt", "the 0.5", True),
        ("a.VEC", "2 3", True),
        ("a.txt", "the", False),
        ("a.txt", "7", False),
        ("a.txt", "", False),
        ("a.txt", "the end", False),
        ("a.bin", "the 0.5", False),
    ],
)
def test_the_first_line_of_a_file(name, line, static, tmp_path):
    (tmp_path / name).write_text(f"{line}\n")
    assert is_static(tmp_path / name) is static


def words(tmp_path, *lines):
    (tmp_path / "words.txt").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape") + b"\n")
    return read_table(tmp_path / "words.txt")


@pytest.mark.parametrize("first", [(), ("2 3",)])
def test_words_and_numbers(first, tmp_path):
    table = words(tmp_path, *first, "sea 1 2 3", "New York\t4\t5\t-6")
    # The last row stands for words that it does not have.
    assert table.vectors.tolist() == [[1, 2, 3], [4, 5, -6], [0, 0, 0]]
    assert (table.unknown, table.pad, table.normalize, table.max_length) == (2, 2, False, 8192)
    assert (table.prompts, table.default_prompt) == ({}, None)
    # The unknown token comes first, so that an empty text has one.
    assert table.tokenizer.encode("sea Sea sea!").ids == [2, 0, 2, 0, 2]


def test_words_may_be_numbers(tmp_path):
    """Only a first line of two whole numbers counts words and numbers."""
    assert words(tmp_path, "1 2.5", "2 3").vectors.tolist() == [[2.5], [3], [0]]
    assert words(tmp_path, "1 2 3", "2 4 5").vectors.tolist() == [[2, 3], [4, 5], [0, 0]]


def test_files_without_capitals_read_capitals(tmp_path):
    assert words(tmp_path, "sea 1", "sky 2").tokenizer.encode("SEA sky").ids == [2, 0, 1]
    assert words(tmp_path, "sea 1", "Sky 2").tokenizer.encode("SEA Sky").ids == [2, 2, 1]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a 1 2", "b 1"], "line 2 is not a word and 2 numbers"),
        (["alone"], "line 1 is not a word and its numbers"),
        (["a 1", "b 2", "a 3"], "line 3 repeats 'a' of line 1"),
        (["3 1", "a 1", "b 2"], "its first line says 3 words, but it has 2"),
        (["a 1", "b x"], "line 2 has something other than 1 numbers after its word"),
        (["a 1", "b inf"], "line 2 has a number that is not finite"),
        (["a 1", "\udcff 2"], "line 2 is not UTF-8 text"),
        (["0 4"], "it has no words"),
        (["a 1"] * 4, "line 2 repeats 'a' of line 1; line 3 repeats 'a' of line 1; line 4 repeats 'a' of line 1"),
        (["a 1"] * 6, "line 4 repeats 'a' of line 1; and 2 more like these"),
    ],
)
def test_what_is_wrong_is_named_by_its_line(lines, message, tmp_path):
    with pytest.raises(ExportError) as caught:
        words(tmp_path, *lines)
    assert str(caught.value).endswith(message)
    assert str(caught.value).startswith(f"{tmp_path / 'words.txt'} is not a file of word vectors: ")


def test_a_table_without_unknown_tokens_pads_with_the_first():
    assert StaticTable(torch.zeros(2, 3), None, None, True, 5).pad == 0


def model2vec(folder, **tensors):
    words = {word: place for place, word in enumerate(("[UNK]", "the", "ship", "sailed"))}
    Tokenizer(WordLevel(words, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text('{"model_type": "model2vec"}')
    save_file(tensors, folder / "model.safetensors")
    return folder


def test_vectors_are_found_by_a_mapping_and_weighed(tmp_path):
    mapping, weights = torch.tensor([1, 0, 1, 2]), torch.tensor([1.0, 2.0, -3.0, 0.5])
    folder = model2vec(tmp_path, embeddings=torch.tensor([[1.0, 2], [3, 4], [5, 6]]), mapping=mapping, weights=weights)
    assert read_table(folder).vectors.tolist() == [[3, 4], [2, 4], [-9, -12], [2.5, 3]]


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"embeddings": torch.ones(4)}, r"embeddings of the shape \[4\], not a vector for each token"),
        ({"embeddings": torch.full((4, 2), torch.nan)}, "NaN or infinite"),
        ({"embeddings": torch.full((4, 2), 3e38), "weights": torch.tensor([1.0, 1, 1, 2])}, "NaN or infinite"),
        ({"embeddings": torch.ones(3, 2), "mapping": torch.tensor([0, 1, 2, 3])}, "other places than those of its 3"),
        ({"embeddings": torch.ones(3, 2), "mapping": torch.tensor([0, 1, 2, -1])}, "other places than those of its 3"),
        ({"embeddings": torch.ones(4, 2), "weights": torch.ones(3)}, "weights that are not one for each of 4 tokens"),
        ({"embeddings": torch.ones(4, 2), "weights": torch.ones(1)}, "weights that are not one for each of 4 tokens"),
    ],
)
def test_what_is_wrong_with_vectors_is_named(tensors, message, tmp_path):
    with pytest.raises(ExportError, match=rf"model\.safetensors has .*{message}"):
        read_table(model2vec(tmp_path, **tensors))
