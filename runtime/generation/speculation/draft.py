"""Proposals from a draft model (https://arxiv.org/abs/2211.17192)."""

from __future__ import annotations

import numpy as np

from triform.runtime.bundle.manifest import Manifest
from triform.runtime.generation.sampling import best_token
from triform.runtime.generation.steps import DraftStep, Ids
from triform.runtime.text.tokenizer import Tokenizer


class Draft:
    """Proposes the most likely tokens of a smaller model with the same vocabulary.

    Args:
        step: the draft model; nothing else may use it meanwhile.
        context: the draft model's context, in tokens.
        vocab_size: of the larger model.
    """

    def __init__(self, step: DraftStep, context: int, vocab_size: int) -> None:
        step.wanted = 1
        self._step, self._context, self._vocab_size = step, context, vocab_size

    def __call__(self, ids: Ids, count: int) -> Ids:
        """Continue `ids`; tokens that are in the KV cache are not run again.

        Args:
            ids: int64 (length,), the sequence so far.
            count: tokens to propose, at least one.

        Returns:
            int64 (count,), or (0,) where the draft model's context is full or it predicts a token outside `vocab_size`.

        Raises:
            TriformError: onnxruntime failed.
        """
        if len(ids) + count > self._context:
            return ids[:0]
        tokens = [best_token(self._step.prefill(ids.tolist()))]
        while len(tokens) < count:
            tokens.append(best_token(self._step.next(tokens[-1])))
        return np.array(tokens, np.int64) if max(tokens) < self._vocab_size else ids[:0]


def same_vocabulary(first: Manifest, first_tokenizer: Tokenizer, second: Manifest, second_tokenizer: Tokenizer) -> bool:
    """Whether two models have the same token for every id."""
    ids = range(max(first.vocab_size, second.vocab_size))
    return all(first_tokenizer.id_to_token(token) == second_tokenizer.id_to_token(token) for token in ids)
