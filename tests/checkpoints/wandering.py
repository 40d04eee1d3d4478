"""Random-weight checkpoints that do not repeat themselves: most random models settle on one token and stay there."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.checkpoints.decoder_families import FAMILIES, build
from tests.checkpoints.decoders import CHAT_TEMPLATE, VOCAB, byte_level_tokenizer
from tests.checkpoints.recurrent_families import RECURRENT_FAMILIES


def wandering_folder(folder: Path, family: str) -> Path:
    """A checkpoint of this family in which several tokens may follow each, depending on what was before."""
    model_type, settings = {**FAMILIES, **RECURRENT_FAMILIES}[family]
    model = build(model_type, {**settings, "vocab_size": VOCAB, "tie_word_embeddings": False})
    _rewire(model)
    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=byte_level_tokenizer(), bos_token="<s>", eos_token="<|end|>", pad_token="<pad>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE if family in RECURRENT_FAMILIES else None
    tokenizer.save_pretrained(folder)
    return folder


def _rewire(model: PreTrainedModel) -> None:
    """Make the head look for the embeddings of other tokens than the last one, two for each."""
    generator = torch.Generator().manual_seed(7)
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    with torch.no_grad():
        embedding.copy_(torch.randn(embedding.shape, generator=generator))
        first, second = (torch.randperm(VOCAB, generator=generator) for _ in range(2))
        head.copy_(0.12 * embedding[first] + 0.1 * embedding[second])
        head.add_(0.08 * torch.randn(head.shape, generator=generator))
