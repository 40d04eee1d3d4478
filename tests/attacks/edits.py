"""Damage that a few bytes describe: a fuzzer or hypothesis chooses the bytes, these classes do what they say.

The same bytes always give the same case, and every string of bytes is one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

# More edits of one seed leave nothing of it.
_MOST = 8
DEEP = [[]]
for _ in range(200):
    DEEP = [DEEP]
VALUES = [
    None, True, False, 0, 1, -1, 2, 7, 255, 2**16, 2**31, 2**32 - 1, 2**63, -(2**63), 10**40, 0.5, -0.0, 1e-320, 1e308,
    float("nan"), float("inf"), "", "x", "float32", "logits", "decoder.onnx", "../x", "/etc/passwd", "\x1b]0;x\x07",
    "\u202e", "\ud800", "y" * 9000, "\0", [], [[]], [None], [0], ["a"], [1, "a", None, {}], {}, {"": 0},
    {"a": {}}, DEEP,
]  # fmt: skip
# Numbers and marks that readers of binary files stumble over.
_WORDS = [
    *(value.to_bytes(size, order) for size in (1, 2, 4, 8) for order in ("little", "big") for value in
      (0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), 2 ** (8 * size - 1) - 1)),
    b"\n", b"\r\n", b"\r", b'"', b"{", b"[", b"}", b"]", b",", b"\t", b"\xff\xfe", b"\xef\xbb\xbf", b"\xff",
    b"\xc0\x80",
    b"\xed\xa0\x80", b"\\ud800", b"NaN", b"1e999", b"9" * 5000, b"[" * 3000, b'{"a":' * 3000, b" " * 100,
]  # fmt: skip


class Choices:
    """Reads numbers and bytes from a string of bytes; zeros follow its end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    @property
    def left(self) -> int:
        """How many bytes have not been read."""
        return max(0, len(self._data) - self._place)

    def number(self, below: int) -> int:
        """A number from 0 on."""
        size = max(1, ((below - 1).bit_length() + 7) // 8)
        return int.from_bytes(self.content(size), "little") % below

    def content(self, size: int) -> bytes:
        """So many bytes."""
        taken = self._data[self._place : self._place + size]
        self._place += size
        return taken.ljust(size, b"\0")

    def of(self, values: Sequence[Any]) -> Any:
        """One of several values."""
        return values[self.number(len(values))]


def edited_bytes(content: bytes, choices: Choices, others: Sequence[bytes] = (b"",)) -> bytes:
    """A file with up to eight edits, as many as the choices have bytes for.

    Args:
        content: of the file.
        choices: which edits.
        others: files that a part may come from.
    """
    data = bytearray(content)
    for _ in range(_MOST):
        if not choices.left:
            break
        _edit_bytes(data, choices, others)
    return bytes(data)


def _edit_bytes(data: bytearray, choices: Choices, others: Sequence[bytes]) -> None:
    kind, place = choices.number(9), choices.number(len(data) + 1)
    size = choices.number(64)
    if kind == 0 and data:
        data[place % len(data)] ^= 1 << size % 8
    elif kind == 1:
        word = choices.of(_WORDS)
        data[place : place + len(word)] = word
    elif kind == 2:
        data[place:place] = choices.of(_WORDS)
    elif kind == 3:
        data[place:place] = choices.content(size)
    elif kind == 4:
        data[place : place + size] = choices.content(size)
    elif kind == 5:
        del data[place : place + size]
    elif kind == 6:
        del data[place:]
    elif kind == 7:
        data[place:place] = data[place : place + size] * (1 + choices.number(40))
    else:
        other = choices.of(others)
        begin = choices.number(len(other) + 1)
        data[place : place + size] = other[begin : begin + size]


def edited_json(value: Any, choices: Choices, more: Sequence[Any] = ()) -> Any:
    """A copy of a JSON value with up to eight edits at any depth, as many as the choices have bytes for.

    Args:
        value: an object or a list.
        choices: which edits.
        more: values that may stand anywhere, besides those of `VALUES`.
    """
    value = copy.deepcopy(value)
    for _ in range(_MOST):
        places = list(_places(value))[1:]
        if not choices.left or not places:
            break
        _edit_json(value, choices.of(places), choices, [*VALUES, *more])
    return value


def _edit_json(value: Any, path: tuple[Any, ...], choices: Choices, values: Sequence[Any]) -> None:
    *parents, last = path
    place = _at(value, parents)
    kind = choices.number(6)
    if kind == 0:
        del place[last]
    elif kind == 1:
        place[last] = copy.deepcopy(_at(value, choices.of(list(_places(value)))))
    elif kind == 2 and isinstance(place, dict):
        place[f"{last}{choices.of(['', '2', chr(27), 'x' * 5000])}"] = place.pop(last)
    elif kind == 3 and isinstance(place[last], int) and not isinstance(place[last], bool):
        place[last] += choices.number(256) - 128
    elif kind == 4 and isinstance(place[last], str):
        place[last] += choices.content(choices.number(9)).decode("latin-1")
    else:
        place[last] = copy.deepcopy(choices.of(values))


def _places(value: Any, path: tuple[Any, ...] = ()) -> Any:
    yield path
    if isinstance(value, dict | list) and len(path) < 20:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _places(value[key], (*path, key))


def _at(value: Any, path: Sequence[Any]) -> Any:
    for key in path:
        value = value[key]
    return value
