"""Proposals for what comes next, from a smaller model that is asked first (https://arxiv.org/abs/2211.17192)."""

from __future__ import annotations

import numpy as np

from triform.runtime.generation.steps import Ids, Step


class Draft:
    """What a smaller model of the same vocabulary would most likely say.

    Args:
        step: the smaller model; nothing else may use it meanwhile.
        context: tokens it can hold.
        vocab_size: ids that the larger model knows.
    """

    def __init__(self, step: Step, context: int, vocab_size: int) -> None:
        self._step, self._context, self._vocab_size = step, context, vocab_size

    def __call__(self, ids: Ids, count: int) -> Ids:
        """Go on from `ids`; what the cache holds of them is not run again.

        Args:
            ids: int64 (length,), the sequence so far.
            count: tokens to propose, at least one.

        Returns:
            int64 (count,), or (0,) where the smaller model's context is full or it says what the larger one cannot.

        Raises:
            TriformError: onnxruntime failed.
        """
        if len(ids) + count > self._context:
            return ids[:0]
        found = [int(self._step.prefill(ids.tolist()).argmax())]
        while len(found) < count:
            found.append(int(self._step.next(found[-1]).argmax()))
        return np.array(found, np.int64) if max(found) < self._vocab_size else ids[:0]
