"""The orders of rows and columns that differ between llama.cpp's files and transformers' parameters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Order = NDArray[np.int64]


def turned_rows(start: int, count: int, head_dim: int) -> Order:
    """The rows of rotated queries or keys in transformers' order; llama.cpp's has the two of each pair side by side."""
    rows = np.arange(start, start + count)
    if head_dim and count % head_dim == 0:
        rows = rows.reshape(-1, head_dim // 2, 2).swapaxes(1, 2).reshape(-1)
    return rows


def grouped_rows(count: int, heads: Mapping[str, int]) -> Order | None:
    """The rows of queries, keys and values in groups: the queries of a group, then its keys, then its values."""
    query, key, head = heads["q"], heads["k"], heads["head"]
    if count != query + 2 * key:
        return None
    groups = (-1, query // key, head), (-1, 1, head), (-1, 1, head)
    parts = np.split(np.arange(count), (query, query + key))
    return np.concatenate([part.reshape(group) for part, group in zip(parts, groups, strict=True)], axis=1).reshape(-1)


def order_of(name: str, count: int, heads: Mapping[str, int]) -> Order | None:
    """The order of the rows or columns of a gated delta rule.

    Args:
        name: what they are: "values", "heads of values", "keys and values" or "keys, values and gates".
        count: how many there are.
        heads: numbers of heads of keys and of values ("key heads", "value heads"), and their sizes ("key", "value").

    Returns:
        their numbers in the file, in transformers' order; None if there are not as many as there would be.
    """
    keys, values = heads["key heads"] * heads["key"], heads["value heads"] * heads["value"]
    number, make = {
        "values": (values, _values),
        "heads of values": (heads["value heads"], _heads_of_values),
        "keys and values": (2 * keys + values, _keys_and_values),
        "keys, values and gates": (2 * keys + 2 * values, _keys_values_and_gates),
    }[name]
    return make(heads) if number == count else None


def _by_keys(start: int, size: int, heads: Mapping[str, int]) -> Order:
    """The heads of values in the order of the heads of keys that they belong to; a file has their first ones first."""
    keys, values = heads["key heads"], heads["value heads"]
    rows = np.arange(start, start + values * size)
    return rows.reshape(values // keys, keys, size).swapaxes(0, 1).reshape(-1)


def _values(heads: Mapping[str, int]) -> Order:
    return _by_keys(0, heads["value"], heads)


def _heads_of_values(heads: Mapping[str, int]) -> Order:
    return _by_keys(0, 1, heads)


def _keys_and_values(heads: Mapping[str, int]) -> Order:
    """All queries, all keys, all values."""
    start = 2 * heads["key heads"] * heads["key"]
    return np.concatenate([np.arange(start), _by_keys(start, heads["value"], heads)])


def _keys_values_and_gates(heads: Mapping[str, int]) -> Order:
    """All queries, all keys, all values, all gates; a parameter has those of each head of keys together."""
    keys, key, values = heads["key heads"], heads["key"], heads["value heads"] * heads["value"]
    ends = np.cumsum([keys * key, keys * key, values, values])
    parts = np.split(np.arange(ends[-1]), ends[:-1])
    return np.concatenate([part.reshape(keys, -1) for part in parts], axis=1).reshape(-1)
