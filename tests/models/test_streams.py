"""ProphetNet, whose decoder has streams that predict: what its graphs are compared with, and how long answers are."""

from __future__ import annotations

import pytest
import torch
import transformers

from triform.export.forms.encoder_decoder import answer_limit
from triform.export.options import ExportOptions
from triform.models.encoder_decoder.reference import reference_logits
from triform.models.errors import UnsupportedModelError

POSITIONS = 19
SETTINGS = {
    "vocab_size": 60, "hidden_size": 48, "num_encoder_layers": 3, "num_decoder_layers": 2, "encoder_ffn_dim": 56,
    "num_encoder_attention_heads": 3, "num_decoder_attention_heads": 2, "decoder_ffn_dim": 72, "ngram": 3,
    "max_position_embeddings": POSITIONS, "num_buckets": 6, "relative_max_distance": 12, "pad_token_id": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = transformers.ProphetNetForConditionalGeneration(transformers.ProphetNetConfig(**SETTINGS)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture
def sources():
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    return {"input_ids": torch.arange(4, 14).reshape(2, 5), "attention_mask": mask}


def written(model, sources, count):
    settings = {"eos_token_id": None, "do_sample": False, "num_beams": 1, "max_new_tokens": count}
    return model.generate(**sources, **settings, output_logits=True, return_dict_in_generate=True)


def test_it_is_compared_with_what_generate_computes(model, sources):
    """Given a whole answer at once, transformers says something else of a token when later ones change."""
    answer = written(model, sources, 7)
    ids = answer.sequences[:, :-1]
    torch.testing.assert_close(reference_logits(model, sources, ids), torch.stack(answer.logits, 1), atol=1e-5, rtol=0)
    with torch.no_grad():
        whole, begun = (model(**sources, decoder_input_ids=ids[:, :end]).logits[:, :3] for end in (7, 3))
    assert (whole - begun).abs().max() > 1e-2


def test_an_answer_is_as_long_as_its_last_stream_has_positions(model, sources):
    """The first position is padding's, and the stream that predicts looks one further: 19 - 2."""
    limit = answer_limit(model.config, ExportOptions())
    assert limit == 17
    assert written(model, sources, limit).sequences.shape == (2, limit + 1)
    with pytest.raises(IndexError):
        written(model, sources, limit + 1)


def test_padding_that_transformers_cannot_write_with_is_refused(sources):
    other = transformers.ProphetNetForConditionalGeneration(
        transformers.ProphetNetConfig(**{**SETTINGS, "pad_token_id": 3})
    ).eval()
    with pytest.raises(ValueError, match="position_ids"):
        written(other, sources, 3)
    with pytest.raises(UnsupportedModelError, match="its padding is the token 3"):
        reference_logits(other, sources, torch.ones(2, 3, dtype=torch.int64))
