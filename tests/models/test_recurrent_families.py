"""Families with states of fixed size: the float graph equals PyTorch, for prefill, chunks, steps and ragged batches."""

from __future__ import annotations

import numpy as np
import pytest
from transformers import CONFIG_MAPPING

from tests.checkpoints.decoder_families import VOCAB, build
from tests.checkpoints.recurrent_families import CONTENT, RECURRENT_FAMILIES
from tests.helpers.families import families
from tests.models.test_decoder_families import exported, some_ids
from triform.export.verify.decoder import verify_decoder
from triform.models.catalog import form_of
from triform.models.errors import UnsupportedModelError

# Exported, and so compared with PyTorch, by `tests/runtime/decoder/test_states.py`.
EXPORTED = {"lfm2", "qwen3_5_text", "falcon_h1", "mamba2"}

# States and layers of lfm2, qwen3_5_text, granitemoehybrid and mamba, put together otherwise.
MORE_FAMILIES = {"lfm2_moe", "lfm3", "qwen3_next", "bamba", "falcon_mamba", "inkling_text"}


@pytest.mark.parametrize("family", RECURRENT_FAMILIES)
def test_family_is_let_through(family):
    model_type, settings = RECURRENT_FAMILIES[family]
    assert form_of(CONFIG_MAPPING[model_type](**settings), "text-generation") == "decoder"


@pytest.mark.parametrize("family", families(sorted(RECURRENT_FAMILIES.keys() - EXPORTED), MORE_FAMILIES))
def test_family_matches_pytorch(family, tmp_path):
    model = build(*RECURRENT_FAMILIES[family])
    ids = some_ids(90)
    runner, expected, _, _ = exported(model, tmp_path, ids)
    verify_decoder(runner, expected, ids)
    padded_chunks_match(runner, expected, ids)
    cache = runner._cache
    assert (len(cache.layers), [state.kind for state in cache.states]) == CONTENT[family]


def padded_chunks_match(runner, expected, ids):
    """A row fed in chunks with padding behind each, and with chunks that are nothing but padding."""
    runner.start(1, len(ids) + 20)
    for start, length, padding in ((0, 3, 4), (3, 1, 0), (4, 0, 2), (4, 9, 7), (13, 2, 1), (15, 70, 5)):
        chunk = [*ids[start : start + length], *[VOCAB - 1] * padding]
        logits, _ = runner.feed(np.array([chunk]), np.arange(len(chunk))[None], np.array([length]))
        if length:
            difference = np.abs(logits[0, :length] - expected[start : start + length]).max()
            assert difference <= 5e-4 * np.abs(expected).max()


@pytest.mark.parametrize("model_type", ["rwkv", "xlstm"])
def test_recurrences_of_other_kinds_are_refused_before_loading(model_type):
    with pytest.raises(UnsupportedModelError, match=f"{model_type} models carry a state along the text"):
        form_of(CONFIG_MAPPING[model_type](), "text-generation")
