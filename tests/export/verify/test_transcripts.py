from __future__ import annotations

import numpy as np
import pytest

from triform.export.verify.transcripts import token_errors, written

BLANK = 0


@pytest.mark.parametrize(
    ("frames", "tokens"),
    [
        # Equal tokens one after another are one, unless a blank parts them (Graves et al. 2006).
        ([1, 1, 2, 2, 2], [1, 2]),
        ([1, 0, 1, 1, 0, 0, 2], [1, 1, 2]),
        ([0, 0], []),
        ([], []),
    ],
)
def test_what_is_written(frames: list[int], tokens: list[int]) -> None:
    assert written(np.eye(4)[frames], BLANK) == tokens


@pytest.mark.parametrize(
    ("expected", "actual", "edits"),
    [
        ("kitten", "sitting", 3),
        ("intention", "execution", 5),
        ("abc", "", 3),
        ("abc", "abc", 0),
        ("abc", "xabc", 1),
        ("abc", "bc", 1),
    ],
)
def test_edits(expected: str, actual: str, edits: int) -> None:
    pair = [ord(letter) for letter in expected], [ord(letter) for letter in actual]
    assert token_errors([pair]) == pytest.approx(edits / len(expected))
    assert token_errors([pair[::-1]]) == pytest.approx(edits / max(1, len(actual)))


def test_that_long_transcripts_count_for_more() -> None:
    assert token_errors([([1] * 9, [1] * 9), ([2], [3])]) == pytest.approx(0.1)
    assert token_errors([]) == 0
