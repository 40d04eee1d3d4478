"""Values of keys of another type than llama.cpp reads: each is refused in one line that names the key."""

from __future__ import annotations

import numpy as np
import pytest

from tests.checkpoints.gguf_files import make_model, write_gguf
from triform.export.checkpoint.gguf import loading
from triform.export.checkpoint.gguf.container import GgufFile, open_gguf
from triform.export.checkpoint.gguf.vocabulary.key_types import check_key_types
from triform.export.checkpoint.gguf.vocabulary.special_tokens import special_ids
from triform.runtime.errors import ExportError

# What the keys of each type have to be, one of them, and values of other types.
TEXT, WHOLE, FLOAT, TRUTH = "x", 3, 2.5, True
TEXTS, WHOLES, FLOATS = ["x", "y"], np.array([1, 2], np.int32), np.array([0.5, -1.5], np.float32)
KINDS = {
    "general.type": ("a text", TEXT, (WHOLE, FLOAT, TRUTH, TEXTS, WHOLES)),
    "tokenizer.ggml.model": ("a text", TEXT, (WHOLE, TEXTS, WHOLES)),
    "tokenizer.ggml.pre": ("a text", TEXT, (WHOLE, TEXTS, WHOLES)),
    "tokenizer.chat_template": ("a text", TEXT, (WHOLE, TEXTS)),
    "tokenizer.chat_template.tools": ("a text", TEXT, (WHOLE, TEXTS)),
    "tokenizer.ggml.tokens": ("a list of texts", TEXTS, (TEXT, WHOLE, WHOLES, [WHOLES])),
    "tokenizer.ggml.merges": ("a list of texts", TEXTS, (TEXT, WHOLE, FLOAT, TRUTH, WHOLES, FLOATS)),
    "tokenizer.ggml.scores": ("a list of numbers", FLOATS, (TEXT, FLOAT, TEXTS)),
    "tokenizer.ggml.token_type": ("a list of whole numbers", WHOLES, (TEXT, WHOLE, FLOATS, TEXTS)),
    "tokenizer.ggml.suppress_tokens": ("a list of whole numbers", WHOLES, (WHOLE, FLOATS)),
    "tokenizer.ggml.bos_token_id": ("the number of a token", WHOLE, (TEXT, FLOAT, TRUTH, WHOLES)),
    "tokenizer.ggml.add_bos_token": ("true or false", TRUTH, (TEXT, WHOLE, WHOLES)),
    "tokenizer.ggml.normalizer.lowercase": ("true or false", TRUTH, (TEXT, WHOLE)),
    "tokenizer.ggml.remove_extra_whitespaces": ("true or false", TRUTH, (TEXT, WHOLE)),
    "general.sampling.temp": ("a number", FLOAT, (TEXT, TRUTH, FLOATS)),
    "llama.context_length": ("a number of tokens", WHOLE, (TEXT, FLOAT, TRUTH, WHOLES, 0, -1)),
    "llama.pooling_type": ("a whole number", WHOLE, (TEXT, FLOAT, TRUTH, WHOLES)),
}


def file_of(path, **values):
    return GgufFile(path / "model.gguf", {"general.architecture": "llama", **values}, {})


@pytest.mark.parametrize("key", KINDS)
def test_each_type(key, tmp_path):
    said, right, wrong = KINDS[key]
    good = file_of(tmp_path, **{key: right})
    assert check_key_types(good) is good
    for value in wrong:
        with pytest.raises(ExportError, match=rf"^model\.gguf has {key} = .*, which is not {said}; fetch the file"):
            check_key_types(file_of(tmp_path, **{key: value}))


def test_other_keys_may_have_anything_and_lists_may_be_empty(tmp_path):
    for key in ("general.name", "tokenizer.ggml.other", "gpt2.context_length"):
        for value in (TEXT, FLOAT, WHOLES):
            check_key_types(file_of(tmp_path, **{key: value}))
    for key in ("tokens", "merges", "scores", "token_type"):
        check_key_types(file_of(tmp_path, **{f"tokenizer.ggml.{key}": []}))


def test_a_file_is_checked_when_it_is_opened(tmp_path):
    path = write_gguf(tmp_path / "m.gguf", "llama", make_model("llama"), keys={"tokenizer.ggml.merges": [1, 2]})
    assert open_gguf(path).values["tokenizer.ggml.merges"].tolist() == [1, 2]
    for read in (loading.read_gguf_config, loading.load_gguf_tokenizer, loading.is_quantized):
        with pytest.raises(ExportError, match=r"^m\.gguf has tokenizer\.ggml\.merges = \[1, 2\], which is not a list"):
            read(path)


@pytest.mark.parametrize("ends", [np.array([1, 3], np.uint32), np.array([-1], np.int32), FLOATS, 3, TRUTH, TEXTS])
def test_ends_that_are_no_tokens(ends, tmp_path):
    tokens = {"tokenizer.ggml.tokens": ["a", "b", "c"]}
    assert special_ids(file_of(tmp_path, **tokens, **{"tokenizer.ggml.eos_token_ids": np.array([2, 0])})).ends == [2, 0]
    assert special_ids(file_of(tmp_path, **tokens, **{"tokenizer.ggml.eos_token_ids": 2})).ends == [2]
    with pytest.raises(ExportError, match=r"^model\.gguf has tokenizer\.ggml\.eos_token_ids = .*, but 3 tokens$"):
        special_ids(file_of(tmp_path, **tokens, **{"tokenizer.ggml.eos_token_ids": ends}))
