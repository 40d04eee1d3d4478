"""A sample of the types that docs/models.md says work, another one for each release of transformers."""

from __future__ import annotations

import random

import transformers

from tests.coverage.page import PAGE, working

DECODERS, OTHERS = 13, 12
_OTHERS = ("encoder", "classifier", "embedder", "encoder-decoder")


def sampled_decoders() -> list[str]:
    """The names of `DECODERS` decoders."""
    return _sampled([name for form, name in _working() if form == "decoder"], DECODERS)


def sampled_others() -> list[tuple[str, str]]:
    """The form and name of `OTHERS` types that are no decoders."""
    return _sampled([pair for pair in _working() if pair[0] in _OTHERS], OTHERS)


def _working() -> list[tuple[str, str]]:
    return working(PAGE.read_text(encoding="utf-8"))


def _sampled(values: list, count: int) -> list:
    return sorted(random.Random(transformers.__version__).sample(values, count))
