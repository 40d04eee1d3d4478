"""Tokenizes a text of any length with only a part of it in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from triform.runtime.text.tokenizer import Tokenizer

# Characters to read at once, and how many consecutive tokens must agree before two parts are joined.
_PART, _AGREEING = 2**16, 16

# Its id, and its start and end in characters.
_Token = tuple[int, int, int]


def stream_ids(tokenizer: Tokenizer, file: TextIO, part: int = _PART) -> Iterator[int]:
    """The ids of the whole text, special tokens around it included.

    A part is tokenized together with the last quarter of the one before it. The two are joined where they have the same
    tokens at the same positions for a while, since tokens depend on nearby characters, not on distant ones. Where they
    never agree, both parts are tokenized as one.

    Args:
        tokenizer: of the model.
        file: open for reading text.
        part: characters to read at once.

    Yields:
        one id at a time.
    """
    before, after = ids_around(tokenizer)
    yield from before
    text = file.read(part)
    # The first `done` tokens of the current part were yielded as the end of the one before it.
    tokens, done = _tokens(tokenizer, text), 0
    while fresh := file.read(part):
        start = 3 * len(text) // 4
        following = _tokens(tokenizer, text[start:] + fresh)
        meeting = _meeting(tokens, following, start, done)
        if meeting is None:
            text += fresh
            tokens = _tokens(tokenizer, text)
            continue
        yield from (id_ for id_, _, _ in tokens[done : meeting[0]])
        text, tokens, done = text[start:] + fresh, following, meeting[1]
    yield from (id_ for id_, _, _ in tokens[done:])
    yield from after


def _meeting(tokens: list[_Token], following: list[_Token], start: int, done: int) -> tuple[int, int] | None:
    """Where two tokenizations begin to agree: the index in `tokens`, not below `done`, and that in `following`."""
    places: dict[int, int] = {}
    for index, (_, begin, _) in enumerate(tokens[done:], done):
        places.setdefault(begin - start, index)
    for index, (_, begin, _) in enumerate(following):
        first = places.get(begin, len(tokens))
        shifted = [(id_, begin - start, end - start) for id_, begin, end in tokens[first : first + _AGREEING]]
        if len(shifted) == _AGREEING and shifted == following[index : index + _AGREEING]:
            return first, index
    return None


def _tokens(tokenizer: Tokenizer, text: str) -> list[_Token]:
    encoding = tokenizer.encode(text, add_special_tokens=False)
    return [(id_, begin, end) for id_, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True)]


def ids_around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text."""
    bare, whole = (tokenizer.encode("a", add_special_tokens=special).ids for special in (False, True))
    for start in range(len(whole) - len(bare) + 1):
        if whole[start : start + len(bare)] == bare:
            return whole[:start], whole[start + len(bare) :]
    return [], []
