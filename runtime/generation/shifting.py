"""Continues when the context is full: drops the oldest tokens and runs the kept ones again."""

from __future__ import annotations

from collections.abc import Sequence

from triform.runtime.errors import InputError, option
from triform.runtime.generation.steps import ShiftableStep
from triform.runtime.likeliest import Scores, Table


class ShiftingStep:
    """A `SpeculativeStep` for any number of tokens.

    When the context is full, the first `keep` tokens are kept, and enough of the newest to fill half of the rest. Keys
    and values depend on everything before them, so those of the tokens that move are recomputed: the logits are those
    of the kept tokens, as if there had been no others.
    """

    def __init__(self, step: ShiftableStep, context: int, keep: int) -> None:
        """Wrap a step.

        Args:
            step: the model.
            context: the model's context, in tokens.
            keep: number of tokens at the start that are never dropped.

        Raises:
            InputError: `keep` leaves no room.
        """
        if keep > context - 2:
            raise InputError(f"{option('keep')} {keep} leaves no room in the model's context of {context}; keep fewer")
        self._step, self._context, self._keep = step, context, keep

    def kept(self, ids: Sequence[int]) -> list[int]:
        """The tokens to keep: all of them where there is room for another."""
        if len(ids) < self._context:
            return list(ids)
        return [*ids[: self._keep], *ids[len(ids) - (self._context - self._keep) // 2 :]]

    def shared(self, ids: Sequence[int]) -> int:
        """How many tokens `prefill` would not run, since they are in the KV cache."""
        return self._step.shared(self.kept(ids))

    def prefill(self, ids: Sequence[int]) -> Scores:
        """As `ShiftableStep.prefill`, for any number of ids."""
        return self._step.prefill(self.kept(ids))

    def next(self, token: int) -> Scores:
        """As `ShiftableStep.next`, without a limit."""
        return self._step.next(token) if self.room else self.prefill([*self._step.ids, token])

    @property
    def room(self) -> int:
        """Tokens that fit before any are dropped again."""
        return self._context - len(self._step.ids)

    def extend(self, tokens: Sequence[int]) -> Table:
        """As `ShiftableStep.extend`, for as many tokens as there is room for."""
        return self._step.extend(tokens)

    def trim(self, count: int) -> None:
        """As `ShiftableStep.trim`."""
        self._step.trim(count)
