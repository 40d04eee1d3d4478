"""Tokenizers of encoder-decoders, written once."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def families(trained, tmp_path_factory):
    """Original, folder and record of each family, written when first asked for."""
    from tests.checkpoints.seq2seq_tokenizers import BUILDERS
    from triform.export.tokenization.seq2seq import save_tokenizers

    made = {}

    def make(name):
        if name not in made:
            tokenizer, folder = BUILDERS[name](trained), tmp_path_factory.mktemp("written")
            made[name] = tokenizer, folder, save_tokenizers(tokenizer, folder)
        return made[name]

    return make
