"""Windows of the sample texts begin as the model's tokenizer begins a text."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from tests.checkpoints.decoders import byte_level_tokenizer
from triform.export.samples import texts


@pytest.mark.parametrize(("template", "before"), [("<s> $A", [1]), ("<s> <|user|> $A <|end|>", [1, 3]), ("$A", [])])
def test_each_window_has_what_comes_before_a_text(template, before):
    inner = byte_level_tokenizer()
    names = {name: inner.token_to_id(name) for name in ("<s>", "<|user|>", "<|end|>")}
    plain = inner.encode(texts.read_text("evaluation"), add_special_tokens=False).ids
    inner.post_processor = processors.TemplateProcessing(single=template, special_tokens=list(names.items()))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=inner.get_vocab_size()))
    found = texts.text_ids(tokenizer, texts.read_text("evaluation"), 100, SimpleNamespace(config=config), window=40)
    share = 40 - len(before)
    assert found == [*before, *plain[:share], *before, *plain[share : 2 * share], *before, *plain[2 * share :]][:100]
