"""A tokenizer that gives characters their code points is recognized by what it does, and described."""

from __future__ import annotations

import pytest
from transformers import AddedToken, ByT5Tokenizer, CanineTokenizer, PreTrainedTokenizerFast

from tests.checkpoints.decoders import byte_level_tokenizer
from triform.export.checkpoint.processors import save_tokenizer
from triform.export.tokenization.code_points import code_points_info
from triform.runtime.bundle.text_info import CodePointsInfo
from triform.runtime.errors import ExportError

CLS, SEP, MASK = 0xE000, 0xE001, 0xE003


def test_canine():
    # What Clark et al. set aside in the private use area; transformers 5 gives both texts of a pair the type 0.
    assert code_points_info(CanineTokenizer()) == CodePointsInfo(CLS, SEP, [0, CLS, SEP, MASK], [], 0)


def test_a_mask_that_swallows_spaces():
    mask = AddedToken(chr(MASK), lstrip=True, special=True)
    info = code_points_info(CanineTokenizer(added_tokens_decoder={MASK: mask}))
    assert info == CodePointsInfo(CLS, SEP, [0, CLS, SEP, MASK], [MASK], 0)
    assert code_points_info(CanineTokenizer(added_tokens_decoder={MASK: AddedToken(chr(MASK), rstrip=True)})) is None


def test_types_as_bert_has_them():
    tokenizer = CanineTokenizer()
    tokenizer.token_type_ids_pattern = "bert_style"
    info = code_points_info(tokenizer)
    assert info is not None
    assert info.second_type == 1


class _Small(CanineTokenizer):
    def _tokenize(self, text):
        return list(text.lower()) if text.isascii() else list(text)


class _Planes(CanineTokenizer):
    def _convert_token_to_id(self, token):
        return min(ord(token), 0x10FFFE)


@pytest.mark.parametrize("tokenizer", [_Small(), _Planes(), ByT5Tokenizer()], ids=lambda one: type(one).__name__)
def test_others_are_not(tokenizer):
    assert code_points_info(tokenizer) is None


def test_a_tokenizer_with_a_backend_is_not():
    assert code_points_info(PreTrainedTokenizerFast(tokenizer_object=byte_level_tokenizer())) is None


def test_it_is_for_encoders_of_texts(tmp_path):
    with pytest.raises(ExportError, match="for encoders of texts only"):
        save_tokenizer(CanineTokenizer(), tmp_path)
