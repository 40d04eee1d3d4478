"""The boxes of special tokens, of tokenizers that give some and of those that do not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from triform.export.tokenization.boxes import boxes_info
from triform.models.encoder.boxes import BoxForm
from triform.runtime.bundle.text_info import BoxesInfo, SpecialBox
from triform.runtime.errors import UnsupportedError


def found(scale=1000, whole=True, **tokenizer):
    return boxes_info(SimpleNamespace(**{"sep_token_id": 3, "cls_token_id": 2} | tokenizer), BoxForm(scale, whole))


def test_a_tokenizer_that_gives_no_boxes():
    """The separator's is the lower right corner of the page; that of the first token is nothing but zeros."""
    assert found() == BoxesInfo(1000, True, [SpecialBox(3, [1000] * 4)])
    assert found(1, False) == BoxesInfo(1, False, [SpecialBox(3, [1] * 4)])
    assert found(sep_token_id=None) == BoxesInfo(1000, True, [])


def test_boxes_of_a_tokenizer():
    given = {"sep_token_box": [0, 0, 500, 1000], "cls_token_box": [10, 20, 30, 40], "pad_token_box": [0, 0, 0, 0]}
    assert found(**given).special == [SpecialBox(3, [0, 0, 500, 1000]), SpecialBox(2, [10, 20, 30, 40])]
    assert found(100, **given).special == [SpecialBox(3, [0, 0, 50, 100]), SpecialBox(2, [1, 2, 3, 4])]
    # Where one token is both its box is that of the first.
    assert found(cls_token_id=3, **given).special == [SpecialBox(3, [10, 20, 30, 40])]


def test_a_box_of_the_padding_is_refused():
    with pytest.raises(UnsupportedError, match=r"^its tokenizer gives padding and questions a box, \[0, 0, 0, 1\]$"):
        found(pad_token_box=[0, 0, 0, 1])
    assert found(pad_token_box=None) == found()
