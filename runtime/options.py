"""What a user may ask of one generation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real

from triform.runtime.errors import InputError


@dataclass(frozen=True)
class GenerationOptions:
    """Checked once, at the edge; nothing below it guesses.

    Attributes:
        max_new_tokens: at least 1; up to the model's context when None.
        temperature: divides the logits; 0 takes the most likely token always.
        top_k: sample from the k most likely tokens; 0 means all.
        top_p: sample from the fewest tokens that together reach this probability, in (0, 1].
        seed: makes sampling repeatable; fresh randomness when None.

    When temperature, top_k and top_p are all None, the model's own defaults apply.

    Raises:
        InputError: a value is out of range or of another type.
    """

    max_new_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        for name in ("max_new_tokens", "top_k", "seed"):
            _check_number(name, getattr(self, name), Integral, "a whole number")
        for name in ("temperature", "top_p"):
            _check_number(name, getattr(self, name), Real, "a finite number")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise InputError(f"--max-new-tokens must be at least 1, not {self.max_new_tokens}")
        if self.temperature is not None and self.temperature < 0:
            raise InputError(f"--temperature must be 0 or more, not {self.temperature}")
        if self.top_k is not None and self.top_k < 0:
            raise InputError(f"--top-k must be 0 or more, not {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise InputError(f"--top-p must be above 0 and at most 1, not {self.top_p}")
        if self.seed is not None and self.seed < 0:
            raise InputError(f"--seed must be 0 or more, not {self.seed}")


def _check_number(name: str, value: object, kind: type, wanted: str) -> None:
    if value is None:
        return
    # bool counts as Integral, but True tokens are a mistake.
    if (
        isinstance(value, bool)
        or not isinstance(value, kind)
        or (isinstance(value, float) and not math.isfinite(value))
    ):
        raise InputError(f"--{name.replace('_', '-')} must be {wanted}, not {value!r}")
