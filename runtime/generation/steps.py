"""What generation asks of a model: protocols that one step of each graph fulfils."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]
# Positions in ascending order, int64.
Positions = NDArray[Any]
# Hidden states, float32 (tokens, hidden_size).
States = NDArray[np.float32]
FinishReason = Literal["stop", "length"]


class Step(Protocol):
    """One sequence, token by token."""

    def prefill(self, ids: Sequence[int]) -> Logits:
        """Make the sequence these tokens; give the logits after the last."""

    def next(self, token: int) -> Logits:
        """Append a token; give the logits after it."""


class SpeculativeStep(Step, Protocol):
    """A model that can run several tokens at once and forget the last of them."""

    @property
    def room(self) -> int:
        """Tokens that can be fed to `extend`."""

    def extend(self, tokens: Sequence[int]) -> Logits:
        """Append tokens; give the logits after each, float32 (tokens, vocab_size), valid until the next call."""

    def trim(self, count: int) -> None:
        """Forget the last tokens."""


class KeepingStep(SpeculativeStep, Protocol):
    """A model that keeps what it read for the next prompt."""

    def shared(self, ids: Sequence[int]) -> int:
        """How many of the first tokens `prefill` would not run, because they are there already."""


class ShiftableStep(KeepingStep, Protocol):
    """A model that can read its sequence again from any token."""

    @property
    def ids(self) -> Sequence[int]:
        """The tokens that it holds."""


class BranchingStep(Protocol):
    """A model that tries several next tokens at once and tells its hidden states."""

    def prefill(self, ids: Sequence[int]) -> tuple[Logits, States]:
        """Begin with a prompt; the logits after its last token, (vocab_size,), and all its hidden states."""

    def branch(self, tokens: NDArray[np.int64], row: int) -> tuple[Logits, States]:
        """Append each token to the sequence whose last token was candidate `row` of the call before.

        Returns:
            logits (tokens, vocab_size) and hidden states (tokens, hidden_size), valid until the next call.
        """


class BatchStep(Protocol):
    """Several sequences at once."""

    def prefill(self, rows: Sequence[Sequence[int]]) -> Logits:
        """Begin: one row a prompt, lengths may differ; logits after each one's end, float32 (rows, vocab_size)."""

    def next(self, tokens: Sequence[int], parents: Sequence[int]) -> Logits:
        """Row i of the new batch is row parents[i] of the present one with tokens[i] appended.

        The number of rows may grow (after prefill: num_beams per prompt), shrink (rows that finished leave) or stay.
        Logits float32 (len(tokens), vocab_size), valid until the next call.
        """


class OpenBatchStep(BatchStep, Protocol):
    """A batch that rows may leave and join between steps."""

    def select(self, parents: Sequence[int]) -> None:
        """Make row i what row `parents[i]` is now, without running the model."""

    def join(self, ids: Sequence[int]) -> Logits:
        """Add a row behind the others; logits after its last token, float32 (vocab_size,), until the next call."""
