"""The likeliest tokens after a text, where nothing else is asked for, and where all are needed."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.likeliest import Likeliest, all_logits, all_rows, likeliest_of


def test_the_likeliest_alone_come_without_others():
    rows = likeliest_of(np.array([3, -1]))
    assert [row.best for row in rows] == [3, -1]
    for row in rows:
        assert (row.tokens.shape, row.tokens.dtype) == ((0,), np.int64)
        assert (row.logits.shape, row.logits.dtype) == ((0,), np.float32)


def test_a_few_tokens_are_not_taken_for_all():
    few = Likeliest(1, np.array([1]), np.array([0.5], np.float32))
    for read, value in ((all_logits, few), (all_rows, [few])):
        with pytest.raises(ValueError, match="all logits are needed"):
            read(value)
    logits = np.zeros((2, 3), np.float32)
    assert all_logits(logits[0]).shape == (3,) and all_rows(logits) is logits
