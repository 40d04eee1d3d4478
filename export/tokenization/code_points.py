"""Describes a tokenizer of transformers whose ids are code points (CANINE's) for the manifest."""

from __future__ import annotations

import random
from typing import Any

from triform.export.tokenization.conversion import first_difference
from triform.runtime.bundle.text_info import CodePointsInfo
from triform.runtime.text.code_points import LAST_CODE_POINT, CodePointTokenizer

# Number of characters compared with the original, from all planes, without surrogates.
_CHARACTERS = 2000


def code_points_info(tokenizer: Any) -> CodePointsInfo | None:
    """Describe a tokenizer whose ids are code points.

    It is recognized by its ids: for difficult texts, and for characters of all planes, they are those of the runtime's
    tokenizer.

    Args:
        tokenizer: of transformers.

    Returns:
        the description; None for any other tokenizer.
    """
    if hasattr(tokenizer, "backend_tokenizer"):
        return None
    try:
        info = _described(tokenizer)
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
    if info is None:
        return None
    rebuilt = CodePointTokenizer(info)
    text = _characters_of_all_planes()
    if tokenizer(text, verbose=False)["input_ids"] != rebuilt.encode(text).ids:
        return None
    return info if first_difference(tokenizer, rebuilt) is None else None


def _described(tokenizer: Any) -> CodePointsInfo | None:
    single = tokenizer.build_inputs_with_special_tokens([-1])
    pair = tokenizer.build_inputs_with_special_tokens([-1], [-2])
    types = tokenizer.create_token_type_ids_from_sequences([-1], [-2])
    first, separator = single[0], single[-1]
    if single != [first, -1, separator] or pair != [first, -1, separator, -2, separator] or first < 0:
        return None
    if types not in ([0, 0, 0, types[-1], types[-1]], [0] * len(pair)):
        return None
    swallowing = [token for token, added in tokenizer.added_tokens_decoder.items() if added.lstrip]
    special = sorted(set(tokenizer.all_special_ids))
    return CodePointsInfo(first, separator, special, sorted(swallowing), types[-1])


def _characters_of_all_planes() -> str:
    generator = random.Random(0)
    chosen = [*generator.sample(range(LAST_CODE_POINT + 1), _CHARACTERS), *range(0x300), LAST_CODE_POINT]
    return "".join(chr(point) for point in chosen if not 0xD800 <= point <= 0xDFFF)
