"""Makes pages of texts: their words, in boxes all over the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from triform.runtime.text.pages import Page


def pages_of(passages: Iterable[str]) -> Iterator[Page]:
    """A page of each text. Boxes differ from word to word in all coordinates, and are the same each time."""
    draw = np.random.default_rng(0)
    for text in passages:
        words = text.split()
        corners = np.sort(draw.integers(0, 1001, (len(words), 2, 2)), axis=1)
        yield Page(words, corners.reshape(-1, 4).tolist())
