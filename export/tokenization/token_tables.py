"""Inputs that a tokenizer gives besides the ids of tokens, each of which follows from a token's id alone (RoCBert).

A graph looks them up, so that a bundle's tokenizer needs to give ids only.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from transformers import PreTrainedModel

from triform.export.tokenization.conversion import difficult_texts
from triform.models.catalog import TEXT_INPUTS
from triform.runtime.errors import UnsupportedError

# Texts of this many tokens find out what the tokenizer gives for each.
_AT_ONCE = 64


def token_tables(tokenizer: Any, model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """By name of a further input that a model takes and its tokenizer gives, its number for each token id.

    Args:
        tokenizer: of the checkpoint, as transformers has it.
        model: that reads texts.

    Returns:
        int64 (vocab_size,) each; 0 for ids that no text has.

    Raises:
        UnsupportedError: the numbers do not follow from the ids alone.
    """
    accepted = inspect.signature(model.forward).parameters
    names = [name for name in tokenizer("a") if name in accepted and name not in TEXT_INPUTS]
    tables = {name: torch.zeros(model.config.vocab_size, dtype=torch.int64) for name in names}
    if not names:
        return {}
    known: dict[str, dict[int, int]] = {name: {} for name in names}
    for text in (*difficult_texts(), *_vocabulary(tokenizer)):
        encoded = tokenizer(text, verbose=False)
        for name in names:
            for token, number in zip(encoded["input_ids"], encoded[name], strict=True):
                if known[name].setdefault(token, number) != number:
                    raise UnsupportedError(f"its {name} do not follow from its token ids alone, which is not supported")
    for name, numbers in known.items():
        tables[name][list(numbers)] = torch.tensor(list(numbers.values()))
    return tables


def _vocabulary(tokenizer: Any) -> Iterable[str]:
    """Texts of all tokens, those that continue a word after a letter.

    Without those around a text, for which a tokenizer gives something else where they stand in a text.
    """
    around = {*tokenizer.all_special_tokens} - {tokenizer.mask_token}
    words = [word for word in tokenizer.get_vocab() if word not in around]
    for start in range(0, len(words), _AT_ONCE):
        yield " ".join(words[start : start + _AT_ONCE])
        yield " ".join(f"a{word.removeprefix('##')}" for word in words[start : start + _AT_ONCE])


def add_by_token(model: PreTrainedModel, tables: dict[str, torch.Tensor]) -> None:
    """Let a model look up further inputs by the ids of tokens, where it is not given them.

    Args:
        model: stays changed.
        tables: from `token_tables`.
    """

    def insert(_: torch.nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, {**{name: table[named["input_ids"]] for name, table in tables.items()}, **named}

    if tables:
        model.register_forward_pre_hook(insert, with_kwargs=True)
