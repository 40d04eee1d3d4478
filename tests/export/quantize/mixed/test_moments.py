"""What the gradients of a model's results say of the matrices that they went through."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    CTRLConfig,
    CTRLLMHeadModel,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    Gemma4ForCausalLM,
    Gemma4TextConfig,
    T5Config,
    T5ForSequenceClassification,
)

from triform.export.quantize.mixed.moments import measure, product_modules


@pytest.fixture
def classifier():
    """Encoder and decoder look the same text up, each by a module of its own around one weight."""
    torch.manual_seed(3)
    config = T5Config(
        vocab_size=40,
        d_model=24,
        d_kv=16,
        d_ff=56,
        num_layers=2,
        num_decoder_layers=1,
        num_heads=3,
        num_labels=5,
        decoder_start_token_id=0,
    )
    return T5ForSequenceClassification(config).eval()


def test_each_lookup_of_one_table_is_measured(classifier, tmp_path):
    ids = torch.tensor([[5, 9, 7, 1]])
    values = (classifier(input_ids=ids).logits[0, 2] for _ in range(1))
    found = measure(classifier, product_modules(classifier), values, 1, tmp_path)

    lookups = [classifier.transformer.shared(part).requires_grad_() for part in (ids, classifier._shift_right(ids))]
    body = classifier.transformer(inputs_embeds=lookups[0], decoder_inputs_embeds=lookups[1])
    logit = classifier.classification_head(body.last_hidden_state[:, -1])[0, 2]
    gradients = torch.autograd.grad(logit, lookups)
    torch.testing.assert_close(found.embedding, sum(part.square().sum((0, 1)) for part in gradients))
    # The table is tied to a head that classifiers have not.
    assert len(found.products) == len(product_modules(classifier))


def test_each_table_that_tokens_are_looked_up_in_is_measured(tmp_path):
    """Gemma 3n and 4 have a second table, wider than their hidden states, whose rows all layers share among them."""
    torch.manual_seed(5)
    config = Gemma4TextConfig(
        vocab_size=40, vocab_size_per_layer_input=40, hidden_size=24, hidden_size_per_layer_input=8,
        num_hidden_layers=2, intermediate_size=56, num_attention_heads=3, num_key_value_heads=1, head_dim=8,
        global_head_dim=16, num_kv_shared_layers=0, layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    model = Gemma4ForCausalLM(config).eval()
    ids = torch.tensor([[5, 9, 7, 1]])
    values = (model(input_ids=ids).logits[0, 3, 2] for _ in range(1))
    found = measure(model, product_modules(model), values, 1, tmp_path)

    tables = [model.model.embed_tokens, model.model.embed_tokens_per_layer]
    outputs = []
    for table in tables:
        table.register_forward_hook(lambda *call: outputs.append(call[2].requires_grad_()))
    gradients = torch.autograd.grad(model(input_ids=ids).logits[0, 3, 2], outputs)
    for table, gradient in zip(tables, gradients, strict=True):
        # They multiply what they look up by a constant, and the gradient is that of the rows.
        expected = gradient.square().sum((0, 1)) * table.embed_scale**2
        torch.testing.assert_close(found.tables[id(table.weight)], expected)
    assert found.embedding is found.tables[id(model.model.embed_tokens.weight)]


def test_products_of_positions_are_measured(tmp_path):
    """DeBERTa multiplies its table of relative positions, which no text changes."""
    torch.manual_seed(4)
    config = DebertaV2Config(
        vocab_size=40, hidden_size=24, intermediate_size=56, num_hidden_layers=2, num_attention_heads=3,
        relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, max_relative_positions=16,
        share_att_key=False,
    )  # fmt: skip
    model = DebertaV2ForSequenceClassification(config).eval()
    ids = torch.tensor([[5, 9, 7, 1]])
    values = (model(input_ids=ids).logits[0, 1] for _ in range(1))
    found = measure(model, product_modules(model), values, 1, tmp_path)

    product = model.deberta.encoder.layer[0].attention.self.pos_key_proj
    outputs = []
    with product.register_forward_hook(lambda *call: outputs.append(call[2].requires_grad_())):
        logit = model(input_ids=ids).logits[0, 1]
    (gradient,) = torch.autograd.grad(logit, outputs)
    expected = gradient.flatten(0, -2).square().sum(0)
    assert expected.sum() > 0
    torch.testing.assert_close(found.products[id(product.weight)].outputs, expected)


def test_rows_that_a_model_changes_in_place_are_measured_as_they_were_looked_up(tmp_path):
    """CTRL multiplies them by the root of their width."""
    torch.manual_seed(6)
    model = CTRLLMHeadModel(CTRLConfig(vocab_size=40, n_positions=16, n_embd=24, dff=56, n_layer=2, n_head=3)).eval()
    ids = torch.tensor([[5, 9, 7, 1]])
    values = (model(input_ids=ids).logits[0, 3, 2] for _ in range(1))
    found = measure(model, product_modules(model), values, 1, tmp_path)

    rows = model.transformer.w(ids).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model(inputs_embeds=rows.clone()).logits[0, 3, 2], rows)
    torch.testing.assert_close(found.embedding, gradient.square().sum((0, 1)))
