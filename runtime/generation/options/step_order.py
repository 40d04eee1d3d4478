"""The order in which processors are applied, and how a user changes it."""

from __future__ import annotations

from collections.abc import Sequence

from triform.runtime.errors import InputError, option
from triform.runtime.generation.options.checks import check_list_of_texts

# The order of transformers' ``_get_logits_processor``; steps that it lacks stand beside similar ones. Described in
# docs/decoding.md. Steps from "temperature" on are for sampling.
ORDER = (
    "logit-bias",
    "encoder-repetition-penalty",
    "repetition-penalty",
    "frequency-penalty",
    "presence-penalty",
    "dry",
    "no-repeat-ngram",
    "encoder-no-repeat-ngram",
    "bad-words",
    "min-length",
    "forced-bos",
    "forced-eos",
    "forced-tokens",
    "exponential-decay",
    "suppress-tokens",
    "begin-suppress-tokens",
    "form",
    "temperature",
    "top-n-sigma",
    "top-k",
    "top-p",
    "min-p",
    "typical-p",
    "epsilon-cutoff",
    "eta-cutoff",
    "xtc",
    "mirostat",
)


def check_order(order: Sequence[str]) -> None:
    """Check the names of steps.

    Raises:
        InputError: a name is unknown, or occurs twice.
    """
    check_list_of_texts("order", order)
    for index, name in enumerate(order):
        if name not in ORDER:
            raise InputError(f"{option('order')} has no step {name!r}; the steps are {', '.join(ORDER)}")
        if name in order[:index]:
            raise InputError(f"{option('order')} names {name} twice")


def reordered(order: Sequence[str]) -> list[str]:
    """The names of all steps; those in `order` take that order, in the positions that they have in `ORDER`."""
    named = iter(order)
    return [next(named) if step in order else step for step in ORDER]
