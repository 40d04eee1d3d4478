"""The two texts that come with the exporter: one to calibrate on, one to compare on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal


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


def read_text(name: Literal["calibration", "evaluation"]) -> str:
    """The text called `name`."""
    return resources.files("triform.export.samples").joinpath("data", f"{name}.txt").read_text(encoding="utf-8")


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
    plain = tokenizer(text, add_special_tokens=False)["input_ids"]
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


def passages_of(text: str, count: int) -> list[str]:
    """`count` passages of a text, from a few words to several sentences, for models that read a text as a whole."""
    words = text.split()
    sizes = (1, 9, 2, 30, 4, 17, 52, 3, 24, 80)
    chosen, start = [], 0
    for index in range(count):
        size = sizes[index % len(sizes)]
        chosen.append(" ".join((words + words)[start : start + size]))
        start = (start + size) % len(words)
    return chosen
