"""Families of models as values of parametrized tests: those that repeat others' mechanisms are marked."""

from __future__ import annotations

from collections.abc import Iterable

import pytest


def families(names: Iterable[str], more: set[str]) -> list:
    """The names, each of `more` marked `more_families`, so that only `make families` runs it.

    Raises ValueError for a name in `more` that is not among `names`.
    """
    names = list(names)
    if unknown := more.difference(names):
        raise ValueError(f"no such families: {', '.join(sorted(unknown))}")
    return [pytest.param(name, marks=pytest.mark.more_families) if name in more else name for name in names]
