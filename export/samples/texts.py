"""The texts that come with the exporter, to calibrate on and to compare on, and how models are given parts of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

from triform.runtime.errors import ExportError

_Name = Literal["calibration", "languages", "forms", "evaluation"]
# What `calibration_mixture` mixes: English, other languages, and code, tables, records and chats.
_MIXED: tuple[_Name, ...] = ("calibration", "languages", "forms")
# Fewest tokens of a paragraph that tell something of it.
_PARAGRAPH_TOKENS = 48
# Words of passages.
_SIZES = (1, 9, 2, 30, 4, 17, 52, 3, 24, 80)


@dataclass(frozen=True)
class TokenWindows:
    """A text for a decoder.

    Attributes:
        ids: of its tokens.
        window: tokens that are read at once; each window starts anew.
    """

    ids: list[int]
    window: int

    def windows(self) -> Iterator[list[int]]:
        """The windows, in order."""
        return (self.ids[start : start + self.window] for start in range(0, len(self.ids), self.window))


def read_text(name: _Name) -> str:
    """The text called `name`."""
    return resources.files("triform.export.samples").joinpath("data", f"{name}.txt").read_text(encoding="utf-8")


def calibration_mixture() -> str:
    """What models are calibrated on where the user has nothing better: paragraphs of all kinds in turn.

    Of the tokens that `spread_ids` takes of it, half are in thirty languages, a quarter are English prose, and a
    quarter are code, tables, records and chats.
    """
    placed = []
    for rank, name in enumerate(_MIXED):
        paragraphs = read_text(name).strip().split("\n\n")
        placed += [((index + 0.5) / len(paragraphs), rank, text) for index, text in enumerate(paragraphs)]
    return "\n\n".join(text for _, _, text in sorted(placed))


def spread_ids(tokenizer: Any, text: str, count: int, model: Any, *, window: int) -> list[int]:
    """As `text_ids`, of a text that may be long: the beginnings of paragraphs from all over it.

    All paragraphs give as many tokens, as far as they have them, so that those of a language with many tokens a word
    are not more.

    Args:
        tokenizer: see `text_ids`.
        text: see `text_ids`.
        count: see `text_ids`.
        model: see `text_ids`.
        window: see `text_ids`.
    """
    paragraphs = [part for part in text.split("\n\n") if part.strip()]
    most = max(1, count // _PARAGRAPH_TOKENS)
    if len(paragraphs) > most:
        paragraphs = [paragraphs[index * len(paragraphs) // most] for index in range(most)]
    ids = [tokenizer(f"{part}\n\n", add_special_tokens=False)["input_ids"] for part in paragraphs]
    share = next((size for size in range(1, count + 1) if sum(min(len(item), size) for item in ids) >= count), count)
    return _in_windows(tokenizer, [token for item in ids for token in item[:share]], count, model, window)


def text_ids(tokenizer: Any, text: str, count: int, model: Any, *, window: int) -> list[int]:
    """The first `count` token ids of a text by this model's tokenizer; the text is repeated if it is too short.

    A tokenizer may know more tokens than the model has embeddings (a stand-in for a real one, say); ids beyond
    the model's vocabulary are folded back into it.

    Args:
        tokenizer: of transformers.
        text: with at least one word.
        count: of tokens.
        model: of transformers.
        window: tokens in a window; each begins with the special tokens that the tokenizer puts before texts.
    """
    return _in_windows(tokenizer, tokenizer(text, add_special_tokens=False)["input_ids"], count, model, window)


def _in_windows(tokenizer: Any, plain: list[int], count: int, model: Any, window: int) -> list[int]:
    if not plain:
        raise ExportError(
            "the tokenizer gives no tokens for ordinary text: its post_processor or its vocabulary lacks them; "
            "fetch the model again"
        )
    before = _beginning(tokenizer)
    size = model.config.get_text_config().vocab_size
    share = window - len(before)
    repeated = plain * (count // max(len(plain), 1) + 1)
    parts = [before + repeated[start : start + share] for start in range(0, count, share)]
    return [token % size for part in parts for token in part][:count]


def _beginning(tokenizer: Any) -> list[int]:
    """The special tokens that a tokenizer puts before a text."""
    whole, plain = tokenizer("a")["input_ids"], tokenizer("a", add_special_tokens=False)["input_ids"]
    return next((whole[:start] for start in range(len(whole)) if whole[start : start + len(plain)] == plain), [])


def passages(name: Literal["calibration", "evaluation"], count: int) -> list[str]:
    """See `passages_of`, of a text that comes with the exporter."""
    return passages_of(read_text(name), count)


def spread_passages(text: str, count: int) -> list[str]:
    """As `passages_of`, from all over a text that may be long."""
    words = text.split()
    starts = (index * len(words) // count for index in range(count))
    return [
        " ".join((words + words)[start : start + _SIZES[index % len(_SIZES)]]) for index, start in enumerate(starts)
    ]


def passages_of(text: str, count: int) -> list[str]:
    """`count` passages of a text, from a few words to several sentences, for models that read a text as a whole."""
    words = text.split()
    chosen, start = [], 0
    for index in range(count):
        size = _SIZES[index % len(_SIZES)]
        chosen.append(" ".join((words + words)[start : start + size]))
        start = (start + size) % len(words)
    return chosen
