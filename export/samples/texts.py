"""The two texts shipped with the exporter: one to calibrate on, another to compare on."""

from __future__ import annotations

from importlib import resources
from typing import Any, Literal


def read(name: Literal["calibration", "evaluation"]) -> str:
    """The text called `name`."""
    return resources.files("triform.export.samples").joinpath("data", f"{name}.txt").read_text(encoding="utf-8")


def ids(tokenizer: Any, name: Literal["calibration", "evaluation"], count: int, model: Any) -> list[int]:
    """The first `count` token ids of a text, as this model's tokenizer sees it, repeated when it is too short.

    A tokenizer may know more tokens than the model has embeddings (a stand-in for a real one, say); ids beyond
    the model's vocabulary are folded back into it.
    """
    found = tokenizer(read(name), add_special_tokens=False)["input_ids"]
    size = model.config.get_text_config().vocab_size
    repeated = found * (count // max(len(found), 1) + 1)
    return [token % size for token in repeated[:count]]


def passages(name: Literal["calibration", "evaluation"], count: int) -> list[str]:
    """`count` stretches of a text, from a few words to several sentences, for models that read a text as a whole."""
    words = read(name).split()
    sizes = (1, 9, 2, 30, 4, 17, 52, 3, 24, 80)
    found, start = [], 0
    for index in range(count):
        size = sizes[index % len(sizes)]
        found.append(" ".join((words + words)[start : start + size]))
        start = (start + size) % len(words)
    return found
