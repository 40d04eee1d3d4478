"""A sample of the decoders that docs/models.md says work: logits and tokens are those of transformers."""

from __future__ import annotations

import pytest

from tests.coverage.attempt import attempt
from tests.coverage.records import WORKS
from tests.coverage.sample import DECODERS, sampled_decoders

SAMPLE = sampled_decoders()


@pytest.mark.parametrize("name", SAMPLE)
def test_a_decoder_gives_what_transformers_gives(name, tmp_path):
    record = attempt("decoder", name, tmp_path)
    assert record.result == WORKS, record.reason


def test_the_sample_is_whole():
    assert len(set(SAMPLE)) == DECODERS
