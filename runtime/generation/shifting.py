"""Going on when the context is full: the oldest tokens are dropped, and what is kept is run again."""

from __future__ import annotations

from collections.abc import Sequence

from triform.runtime.errors import InputError, option
from triform.runtime.generation.steps import Logits, ShiftableStep


class ShiftingStep:
    """A `SpeculativeStep` without end.

    When the context is full, the first `keep` tokens stay, and of the others the newest, as many as fill half of what
    is left. Keys and values depend on everything before them, so those of the tokens that move are computed anew:
    every logit is what the model says of the tokens that are kept, as if there had been no others.
    """

    def __init__(self, step: ShiftableStep, context: int, keep: int = 0) -> None:
        """Wrap a step.

        Args:
            step: the model.
            context: tokens it can hold.
            keep: tokens at the start that are never dropped.

        Raises:
            InputError: they leave no room.
        """
        if keep > context - 2:
            raise InputError(f"{option('keep')} {keep} leaves no room in the model's context of {context}; keep fewer")
        self._step, self._context, self._keep = step, context, keep

    def kept(self, ids: Sequence[int]) -> list[int]:
        """The tokens that stay: all of them where there is room for another."""
        if len(ids) < self._context:
            return list(ids)
        return [*ids[: self._keep], *ids[len(ids) - (self._context - self._keep) // 2 :]]

    def shared(self, ids: Sequence[int]) -> int:
        """How many tokens `prefill(ids)` would not run."""
        return self._step.shared(self.kept(ids))

    def prefill(self, ids: Sequence[int]) -> Logits:
        """As `ShiftableStep.prefill`, for any number of ids."""
        return self._step.prefill(self.kept(ids))

    def next(self, token: int) -> Logits:
        """As `ShiftableStep.next`, for ever."""
        return self._step.next(token) if self.room else self.prefill([*self._step.ids, token])

    @property
    def room(self) -> int:
        """Tokens that fit before the next time any are dropped."""
        return self._context - len(self._step.ids)

    def extend(self, tokens: Sequence[int]) -> Logits:
        """As `ShiftableStep.extend`, for as many tokens as there is room for."""
        return self._step.extend(tokens)

    def trim(self, count: int) -> None:
        """As `ShiftableStep.trim`."""
        self._step.trim(count)
