"""A folder without a usable image processor or tokenizer is refused in one line, whatever its file holds."""

from __future__ import annotations

import json

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tests.checkpoints.decoders import byte_level_tokenizer
from triform.export.checkpoint.files.float_resizing import FloatResizingProcessor
from triform.export.checkpoint.processors import load_image_processor, load_tokenizer
from triform.export.checkpoint.source import Source
from triform.export.tokenization.conversion import first_difference
from triform.runtime.errors import ExportError


@pytest.mark.parametrize("content", [None, [], "DINOv3ViTImageProcessor", {}, {"image_processor_type": "Unknown"}])
def test_what_is_no_image_processor(content, tmp_path):
    if content is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match=r"^model has no usable image processor: ") as caught:
        load_image_processor(Source("model", tmp_path, tmp_path, tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["DINOv3ViTImageProcessor", "DINOv3ViTImageProcessorFast"])
def test_processors_that_transformers_has_for_torchvision_alone(name, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": name}))
    assert isinstance(load_image_processor(Source("model", tmp_path, tmp_path, tmp_path)), FloatResizingProcessor)


def tokenizer_folder(folder, **settings):
    """A byte-level tokenizer, with `settings` in its tokenizer_config.json."""
    PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer(), eos_token="<|end|>").save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, **settings}))
    return folder


def test_special_tokens_that_are_plain_text_are_refused(tmp_path):
    """transformers reads ``<|end|>`` as letters then, and tokenizer.json cannot say so."""
    folder = tokenizer_folder(tmp_path, split_special_tokens=True)
    assert len(AutoTokenizer.from_pretrained(folder)("<|end|>")["input_ids"]) > 1
    with pytest.raises(ExportError, match=r"takes special tokens in a text for plain text \(split_special_tokens"):
        load_tokenizer(Source("model", folder, folder, folder))
    folder = tokenizer_folder(tmp_path, split_special_tokens=False)
    assert load_tokenizer(Source("model", folder, folder, folder))("<|end|>")["input_ids"] == [2]


def test_a_tokenizer_that_cuts_at_random_is_refused(tmp_path):
    folder = tokenizer_folder(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["dropout"] = 0.25
    (folder / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match=r"cuts words at random, as in training \(a dropout of 0\.25 in tokenizer"):
        load_tokenizer(Source("model", folder, folder, folder))


def test_an_added_token_that_is_read_otherwise_is_found(tmp_path):
    """As where a token takes the spaces beside it in only one of the two."""
    tokenizer = load_tokenizer(Source("model", *[tokenizer_folder(tmp_path)] * 3))
    tokenizer.add_tokens([AddedToken("[X]", lstrip=True)])
    assert first_difference(tokenizer, tokenizer.backend_tokenizer) is None
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    content["added_tokens"] = [{**token, "lstrip": False} for token in content["added_tokens"]]
    other = Tokenizer.from_str(json.dumps(content))
    assert "[X]" in first_difference(tokenizer, other)


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ((), "its folder has no tokenizer.json, and no other file that holds one; add tokenizer.json"),
        (("tekken.json",), "and tekken.json alone cannot be read; add tokenizer.json"),
        (("vocab.json", "merges.txt"), "and vocab.json and merges.txt alone cannot be read; add tokenizer.json"),
    ],
)
def test_a_folder_without_a_whole_tokenizer(files, text, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(ExportError, match=text):
        load_tokenizer(Source("little", tmp_path, tmp_path, tmp_path))
