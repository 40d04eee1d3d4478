"""What a tokenizer gives for each token besides its id becomes a table that the graph looks up (RoCBert)."""

from __future__ import annotations

import pytest
import torch
import transformers

import triform
from tests.coverage.checkpoints import save_shapes_and_sounds, save_word_piece_tokenizer
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.tokenization.token_tables import token_tables
from triform.runtime.errors import UnsupportedError

TEXTS = ["The sea was [MASK] calm.", "An [MASK]", "The old man [MASK] the sea that morning, and the boat"]
# Of a score with 8 bits.
TOLERANCE = 1e-3
NAMES = {"input_shape_ids", "input_pronunciation_ids"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    config = transformers.RoCBertConfig(
        vocab_size=400, hidden_size=48, num_hidden_layers=1, num_attention_heads=3, intermediate_size=56,
        max_position_embeddings=70, pronunciation_vocab_size=50, shape_vocab_size=60, pronunciation_embed_dim=24,
        shape_embed_dim=20,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.RoCBertForMaskedLM(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    save_word_piece_tokenizer(folder)
    save_shapes_and_sounds(folder)
    return folder


def test_tables_are_what_the_tokenizer_gives(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tables = token_tables(tokenizer, transformers.AutoModelForMaskedLM.from_pretrained(folder))
    assert tables.keys() == NAMES
    for text in TEXTS:
        encoded = tokenizer(text)
        for name, table in tables.items():
            assert table[encoded["input_ids"]].tolist() == encoded[name]


def test_a_bundle_needs_no_more_than_ids(folder, tmp_path):
    # The export itself compares in float32.
    export(folder, tmp_path / "bundle", ExportOptions(quantize="int8"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    found = triform.load_encoder(tmp_path / "bundle").fill_mask(TEXTS, top_k=400)
    for text, ((*fillings,),) in zip(TEXTS, found, strict=True):
        encoded = tokenizer([text], return_tensors="pt")
        assert encoded.keys() >= NAMES
        with torch.no_grad():
            logits = model(**encoded).logits[0, encoded["input_ids"][0].tolist().index(tokenizer.mask_token_id)]
        scores = torch.zeros(400)
        scores[[filling.token for filling in fillings]] = torch.tensor([filling.score for filling in fillings])
        assert (scores - logits.softmax(-1)).abs().max() < TOLERANCE
        # Without shapes and sounds it would say something else.
        plain = {name: tensor for name, tensor in encoded.items() if name not in NAMES}
        with torch.no_grad():
            others = model(**plain).logits[0, encoded["input_ids"][0].tolist().index(tokenizer.mask_token_id)]
        assert (others.softmax(-1) - logits.softmax(-1)).abs().max() > 2 * TOLERANCE


def test_a_tokenizer_that_gives_none_is_refused(folder, tmp_path):
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "model")
    save_word_piece_tokenizer(tmp_path / "model")
    with pytest.raises(UnsupportedError, match="reads the shape of each character besides its texts, which its tok"):
        export(tmp_path / "model", tmp_path / "bundle", ExportOptions(quantize="none"))
