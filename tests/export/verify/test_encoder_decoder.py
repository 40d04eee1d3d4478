"""A pair of graphs that differs from PyTorch is refused."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from tests.export.verify.test_decoder import IDS, Table, table
from triform.export.verify import encoder_decoder
from triform.export.verify.encoder_decoder import (
    ReferenceAnswers,
    TorchDecoder,
    answer_ids,
    reference_answers,
    verify_encoder_decoder,
)
from triform.models.encoder_decoder.reference import reference_logits
from triform.models.errors import UnsupportedModelError
from triform.runtime.errors import ExportError

LOGITS = table()


@pytest.mark.parametrize(
    ("mels", "token", "reason"),
    [(13, 3, "input_features of 1 x 13 x 40 with decoder tokens up to 3"), (12, 70, "decoder tokens up to 70")],
    ids=["more bands than the model hears", "a start beyond the vocabulary"],
)
def test_what_a_model_does_not_take_is_named(mels, token, reason):
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 20}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 4}
    tokens = {"vocab_size": 50, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}
    config = WhisperConfig(**sizes, **heads, **tokens, num_mel_bins=12, max_source_positions=20)
    model = WhisperForConditionalGeneration(config).eval()
    with pytest.raises(UnsupportedModelError, match=f"model does not take .*{reason}") as caught:
        reference_logits(model, {"input_features": torch.zeros(1, mels, 40)}, torch.tensor([[token]]))
    assert "\n" not in str(caught.value)
    assert reference_logits(model, {"input_features": torch.zeros(1, 12, 40)}, torch.tensor([[3]])).shape == (1, 1, 50)


class Pair:
    """An `EncoderDecoderRunner` whose decoder's logits are a table."""

    def __init__(self, logits):
        self.logits = logits

    def read(self, arrays):
        return Table(self.logits)


@pytest.fixture
def reference(monkeypatch):
    monkeypatch.setattr(encoder_decoder, "padded", lambda samples, pad: {})
    return ReferenceAnswers([None, None], [LOGITS, LOGITS], None, [], IDS, 0)


def test_equal_logits_pass(reference):
    assert verify_encoder_decoder(Pair(LOGITS), reference).prefill == 0


@pytest.mark.parametrize("value", [np.nan, 9.0])
def test_a_difference_for_one_source_is_refused(reference, value):
    other = LOGITS.copy()
    other[7, 1] = value
    for logits in ([LOGITS, other], [other, LOGITS]):
        with pytest.raises(ExportError, match="does not compute what PyTorch does"):
            verify_encoder_decoder(Pair(LOGITS), dataclasses.replace(reference, logits=logits))


@pytest.mark.parametrize("value", [np.nan, 9.0])
@pytest.mark.parametrize("row", [0, 1])
def test_a_difference_in_a_batch_is_refused(reference, value, row):
    together = np.stack([LOGITS, LOGITS])
    assert verify_encoder_decoder(Pair(LOGITS), dataclasses.replace(reference, batch_logits=together)).ragged == 0
    together[row, 7, 1] = value
    with pytest.raises(ExportError, match="does not compute what PyTorch does: ragged"):
        verify_encoder_decoder(Pair(LOGITS), dataclasses.replace(reference, batch_logits=together))


def test_random_answers_are_of_the_vocabulary_and_fit_into_the_context():
    for most, count in ((200, 48), (48, 47), (20, 19)):
        ids = answer_ids(1000, 7, most)
        assert (ids[0], len(ids)) == (7, count)
        assert len(set(ids)) > count / 2
        assert all(0 <= token < 1000 for token in ids)
    assert answer_ids(1000, 7, 20) == answer_ids(1000, 7, 20)


@pytest.mark.parametrize("together", [False, True])
def test_sources_are_answered_one_by_one_and_as_a_batch(monkeypatch, together):
    """The model here gives the sum of a source for each token of an answer, times the token's place."""

    def logits(model, arrays, ids):
        assert ids.shape[0] == len(arrays["input_ids"])
        return arrays["input_ids"].sum(1)[:, None, None] * torch.arange(ids.shape[1])[None, :, None]

    monkeypatch.setattr(encoder_decoder, "reference_logits", logits)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda decoder: SimpleNamespace(vocab_size=90)))
    samples = [{"input_ids": np.array([3, 4, 5])}, {"input_ids": np.array([6])}]
    sources = SimpleNamespace(samples=SimpleNamespace(parity=samples, evaluation=[]), can_be_padded=together)
    found = reference_answers(model, sources, 2, 10, 1)
    assert [row[:, 0].tolist() for row in found.logits] == [[total * place for place in range(9)] for total in (12, 6)]
    if not together:
        assert found.batch_logits is None
        return
    # Padded with two ones.
    assert found.batch_logits[:, 1, 0].tolist() == [12, 8]


def test_a_batch_of_sources_without_padding_is_not_run_again(monkeypatch):
    """What is expected of it is what PyTorch gives for each of them, in their order."""
    asked = []

    def logits(model, arrays, ids):
        asked.append(len(ids))
        return arrays["input_features"].sum((1, 2))[:, None, None] * torch.ones(1, ids.shape[1], 4)

    monkeypatch.setattr(encoder_decoder, "reference_logits", logits)
    model = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda decoder: SimpleNamespace(vocab_size=90)))
    samples = [{"input_features": np.full((2, 3), value, np.float32)} for value in (1, 5, 2)]
    sources = SimpleNamespace(samples=SimpleNamespace(parity=samples, evaluation=[]), can_be_padded=True)
    found = reference_answers(model, sources, 2, 10, 1)
    assert asked == [1, 1, 1]
    assert found.batch_logits.shape == (3, 9, 4)
    assert found.batch_logits[:, 0, 0].tolist() == [6, 30, 12]


def test_pytorchs_model_is_fed_as_a_graph_is(monkeypatch):
    """It reads all tokens anew for each chunk: here a logit is the sum of the tokens so far."""
    seen = []

    def logits(model, source, ids):
        seen.append((model, source["x"].tolist(), ids.tolist()))
        return ids.cumsum(1)[..., None].float()

    monkeypatch.setattr(encoder_decoder, "reference_logits", logits)
    decoder = TorchDecoder("model", {"x": np.array([5])})
    for _ in range(2):
        decoder.start(2, 9)
        found, more = decoder.feed(np.array([[1, 2], [3, 4]]), np.array([[1, 0], [0, 0]]))
        assert (found[..., 0].tolist(), more) == ([[3, 1], [3, 3]], {})
        found, _ = decoder.feed(np.array([[6], [7]]), np.array([[0], [0]]))
        assert found[..., 0].tolist() == [[9], [14]]
    whole = ("model", [5], [[1, 2, 6], [3, 4, 7]])
    assert seen == [("model", [5], [[1, 2], [3, 4]]), whole] * 2
