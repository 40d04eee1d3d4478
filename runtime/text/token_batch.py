"""The token ids of many texts in a few arrays: what a row of Python objects costs is more than a GPU needs for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class TokenBatch:
    """Texts as token ids, one text after the other.

    Attributes:
        ids: int64 (tokens,), of all texts.
        type_ids: int64 (tokens,), the token type id of each.
        lengths: int64 (texts,), the number of tokens of each text.
    """

    ids: Ids
    type_ids: Ids
    lengths: Ids

    @cached_property
    def starts(self) -> Ids:
        """int64 (texts,), where each text begins in `ids`."""
        return np.cumsum(self.lengths) - self.lengths

    def padded(self, texts: Ids, pad: int) -> dict[str, Ids]:
        """Some of the texts as a graph's inputs, each int64 (texts, longest).

        Args:
            texts: their indices.
            pad: id of the padding token.
        """
        lengths = self.lengths[texts]
        places = np.arange(lengths.max(initial=0))
        mask = places < lengths[:, None]
        sources = (self.starts[texts][:, None] + places)[mask]
        ids, type_ids = np.full(mask.shape, pad, np.int64), np.zeros(mask.shape, np.int64)
        ids[mask], type_ids[mask] = self.ids[sources], self.type_ids[sources]
        return {"input_ids": ids, "attention_mask": mask.astype(np.int64), "token_type_ids": type_ids}

    def at_least(self, length: int, pad: int) -> TokenBatch:
        """The same texts, those that are shorter than `length` with padding that is part of them."""
        if not length or not len(self.lengths) or self.lengths.min() >= length:
            return self
        arrays = self.padded(np.arange(len(self.lengths)), pad)
        longest = arrays["input_ids"].shape[1]
        lengths = np.maximum(self.lengths, length)
        kept = np.arange(max(longest, length)) < lengths[:, None]
        wider = [(0, 0), (0, max(0, length - longest))]
        ids = np.pad(arrays["input_ids"], wider, constant_values=pad)[kept]
        return TokenBatch(ids, np.pad(arrays["token_type_ids"], wider)[kept], lengths)


def token_batch(ids: Sequence[Sequence[int]], type_ids: Sequence[Sequence[int]]) -> TokenBatch:
    """Put texts together.

    Args:
        ids: token ids of each text.
        type_ids: for each token its token type id.
    """
    lengths = np.fromiter(map(len, ids), np.int64, len(ids))
    total = int(lengths.sum())
    return TokenBatch(_joined(ids, total), _joined(type_ids, total), lengths)


def _joined(rows: Sequence[Sequence[int]], total: int) -> Ids:
    return np.fromiter(chain.from_iterable(rows), np.int64, total)
