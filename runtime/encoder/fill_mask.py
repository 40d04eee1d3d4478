"""Predicts the masked tokens of texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import check_numbers, softmax
from triform.runtime.encoder.inputs import check_whole
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.errors import BundleError, InputError, UnsupportedError
from triform.runtime.printable import quoted
from triform.runtime.text.pages import Page, Text, text_of
from triform.runtime.text.rows import TokenRow

# The ways a user may write a mask, whatever the model's own mask token is.
_MASKS = ("[MASK]", "<mask>")
# Texts in a batch; few, because the logits of a whole vocabulary are large.
_TEXTS = 8


@dataclass(frozen=True)
class Filling:
    """One way to fill a mask.

    Attributes:
        score: the probability of the token.
        token: its id.
        token_str: its text.
        sequence: the whole text with the token in place of the mask; other masks stay as they are.
    """

    score: float
    token: int
    token_str: str
    sequence: str


@dataclass(frozen=True)
class Target:
    """The token of a word to choose from.

    Attributes:
        word: as passed in.
        token: the id of the word, or of its first token if it has several.
        piece: the token's entry in the vocabulary.
        whole: whether the word is a single token.
    """

    word: str
    token: int
    piece: str
    whole: bool


def fill_mask(
    model: OpenEncoder, texts: Iterable[Text], *, top_k: int = 5, targets: Sequence[int] | None = None
) -> Iterator[list[list[Filling]]]:
    """Find the most likely tokens for every mask of each text, as transformers' fill-mask pipeline does.

    Args:
        model: a fill-mask bundle.
        texts: any number of texts or pages, each with at least one mask, written as the model's own, [MASK] or <mask>.
            Several masks of a text are filled independently.
        top_k: fillings for each mask.
        targets: ids of the tokens to choose from, see `find_targets`; all tokens when None.

    Yields:
        for each text, for each of its masks, `top_k` fillings, the most likely first.

    Raises:
        UnsupportedError: the bundle is for another task, or its tokenizer has no mask.
        BundleError: the logits hold NaN or an infinity.
        InputError: a text has no mask among the tokens that the model can read.
        TriformError: onnxruntime failed.
    """
    mask, own = _mask(model)
    check_whole("top_k", top_k, 1)
    if targets is not None:
        most = model.manifest.vocab_size - 1
        for target in targets:
            check_whole("targets", target, 0, most, expected=f"token ids from 0 to {most}")
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
            check_numbers([logits])
            # Rows are padded: a text with fewer masks than another in the batch has more logits than masks.
            yield [
                [_filling(model, row, place, *best, alone=len(places) == 1) for best in _best(scores, top_k, targets)]
                for place, scores in zip(places, logits, strict=False)
            ]


def find_targets(model: OpenEncoder, words: Sequence[str]) -> list[Target]:
    """Look up the tokens of words. For a word of several tokens the first one is used, as in transformers.

    Raises:
        UnsupportedError: the bundle is for another task.
        InputError: a word has no token at all.
    """
    model.require("fill-mask", "fill-mask")
    return [_target(model, word) for word in words]


def _target(model: OpenEncoder, word: str) -> Target:
    if not isinstance(word, str):
        raise InputError(f"the target {quoted(word)} is not a text")
    tokenizer = model.reader().tokenizer
    whole = tokenizer.token_to_id(word)
    if whole is not None:
        return Target(word, whole, word, True)
    pieces = model.reader().pieces(word)
    if not pieces:
        raise InputError(f"the target {word!r} has no token")
    return Target(word, pieces[0], tokenizer.id_to_token(pieces[0]), False)


def _mask(model: OpenEncoder) -> tuple[int, str]:
    """The id of the mask and its text."""
    model.require("fill-mask", "fill-mask")
    mask = model.manifest.tokens.mask
    if mask is None:
        raise UnsupportedError("the model's tokenizer has no token for a mask; export it with the one it was made with")
    text: str | None = model.reader().tokenizer.id_to_token(mask)
    if text is None:
        raise BundleError(f"the tokenizer does not know the mask, token {mask}; export the model again")
    return mask, text


def _with_mask(text: Text, own: str) -> Text:
    if isinstance(text, Page):
        return replace(text, words=[_masked(word, own) for word in text.words])
    return _masked(text_of(text), own)


def _masked(text: str, own: str) -> str:
    for written in _MASKS:
        text = text.replace(written, own)
    return text


def _positions(row: TokenRow, mask: int) -> list[int]:
    return [index for index, token in enumerate(row.ids) if token == mask]


def _best(logits: NDArray[np.float32], top_k: int, targets: Sequence[int] | None) -> list[tuple[int, float]]:
    """The most likely of the tokens to choose from, with their probabilities among all tokens."""
    probabilities = softmax(logits.astype(np.float64))
    allowed = np.arange(len(probabilities)) if targets is None else np.unique(targets)
    best = allowed[np.argsort(-probabilities[allowed], kind="stable")[:top_k]]
    return list(zip(best.tolist(), probabilities[best].tolist(), strict=True))


def _filling(model: OpenEncoder, row: TokenRow, place: int, token: int, score: float, *, alone: bool) -> Filling:
    tokenizer, pad = model.reader().tokenizer, model.manifest.tokens.pad
    ids = [id_ for id_ in (*row.ids[:place], token, *row.ids[place + 1 :]) if id_ != pad]
    # Masks are special tokens: if others remain, all special tokens are shown.
    sequence = tokenizer.decode(ids, skip_special_tokens=alone)
    return Filling(score, token, tokenizer.decode([token], skip_special_tokens=False), sequence)
