"""What may stand where a text has a mask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import softmax
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.errors import BundleError, InputError, UnsupportedError
from triform.runtime.text.rows import Row

# How people write a mask, whatever the model calls it.
_MASKS = ("[MASK]", "<mask>")
# Logits of a whole vocabulary are large: few texts at a time.
_TEXTS = 8


@dataclass(frozen=True)
class Filling:
    """One way to fill a mask.

    Attributes:
        score: its probability.
        token: its id.
        token_str: its text.
        sequence: the whole text with it; other masks stay as they are.
    """

    score: float
    token: int
    token_str: str
    sequence: str


@dataclass(frozen=True)
class Target:
    """A word to look at, as a token.

    Attributes:
        word: as it was given.
        token: the id of the word, or of its first part.
        piece: how the tokenizer spells that token.
        whole: whether the word is one token.
    """

    word: str
    token: int
    piece: str
    whole: bool


def fill_mask(
    model: OpenEncoder, texts: Iterable[str], *, top_k: int = 5, targets: Sequence[int] | None = None
) -> Iterator[list[list[Filling]]]:
    """The likeliest tokens for every mask of each text, as transformers' fill-mask pipeline finds them.

    Args:
        model: a fill-mask bundle.
        texts: any number of texts, each with one mask or more, written as the model's own, [MASK] or <mask>. Masks of
            one text are filled each for itself.
        top_k: how many.
        targets: ids of the tokens to choose from, see `find_targets`; all when None.

    Yields:
        for each text, for each mask in it, `top_k` fillings, the likeliest first.

    Raises:
        UnsupportedError: the bundle is for another task, or its tokenizer has no mask.
        InputError: a text has no mask, or none among the tokens the model can read.
        TriformError: onnxruntime failed.
    """
    mask, own = _mask(model)
    numbered = enumerate(texts, 1)
    while chunk := list(islice(numbered, _TEXTS)):
        rows = model.reader().read([_with_mask(text, own) for _, text in chunk], first=chunk[0][0])
        positions = [_positions(row, mask) for row in rows]
        for (number, _), row, places in zip(chunk, rows, positions, strict=True):
            if not places:
                within = f" among the first {model.reader().max_length} tokens" if row.truncated else ""
                raise InputError(f"text {number} has no {own}{within}; put one where a word is to be predicted")
        results = model.step.run(rows, ("logits",), positions)
        for row, places, (logits,) in zip(rows, positions, results, strict=True):
            # A text with fewer masks than another of the same run has more logits than masks.
            yield [
                [_filling(model, row, place, *choice, alone=len(places) == 1) for choice in _best(one, top_k, targets)]
                for place, one in zip(places, logits, strict=False)
            ]


def find_targets(model: OpenEncoder, words: Sequence[str]) -> list[Target]:
    """Words as tokens. Of a word that is not one token the first is taken, as transformers does.

    Raises:
        UnsupportedError: the bundle is for another task.
        InputError: a word has no token at all.
    """
    model.require("fill-mask", "fill-mask")
    return [_target(model, word) for word in words]


def _target(model: OpenEncoder, word: str) -> Target:
    tokenizer = model.reader().tokenizer
    whole = tokenizer.token_to_id(word)
    if whole is not None:
        return Target(word, whole, word, True)
    row = model.reader().read([word], add_special_tokens=False)[0]
    if not row.ids:
        raise InputError(f"the target {word!r} has no token")
    return Target(word, row.ids[0], tokenizer.id_to_token(row.ids[0]), False)


def _mask(model: OpenEncoder) -> tuple[int, str]:
    """The mask's id and how it is written."""
    model.require("fill-mask", "fill-mask")
    mask = model.manifest.tokens.mask
    if mask is None:
        raise UnsupportedError("the model's tokenizer has no token for a mask; export it with the one it was made with")
    text: str | None = model.reader().tokenizer.id_to_token(mask)
    if text is None:
        raise BundleError(f"the tokenizer does not know the mask, token {mask}; export the model again")
    return mask, text


def _with_mask(text: str, own: str) -> str:
    for written in _MASKS:
        text = text.replace(written, own)
    return text


def _positions(row: Row, mask: int) -> list[int]:
    return [index for index, token in enumerate(row.ids) if token == mask]


def _best(logits: NDArray[np.float32], top_k: int, targets: Sequence[int] | None) -> list[tuple[int, float]]:
    """Token and probability, among all tokens, of the likeliest of those to choose from."""
    chances = softmax(logits.astype(np.float64))
    allowed = np.arange(len(chances)) if targets is None else np.unique(targets)
    best = allowed[np.argsort(-chances[allowed], kind="stable")[:top_k]]
    return list(zip(best.tolist(), chances[best].tolist(), strict=True))


def _filling(model: OpenEncoder, row: Row, place: int, token: int, score: float, *, alone: bool) -> Filling:
    tokenizer, pad = model.reader().tokenizer, model.manifest.tokens.pad
    ids = [one for one in (*row.ids[:place], token, *row.ids[place + 1 :]) if one != pad]
    # Masks are special tokens: to show those that are left, all special tokens are shown.
    sequence = tokenizer.decode(ids, skip_special_tokens=alone)
    return Filling(score, token, tokenizer.decode([token], skip_special_tokens=False), sequence)
