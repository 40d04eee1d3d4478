"""Protocols of a model as generation uses it: one decoding step, for a sequence or a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from triform.runtime.likeliest import Scores, Table

Ids = NDArray[np.int64]
Logits = NDArray[np.float32]
# Positions in ascending order, int64.
Positions = NDArray[Any]
# Hidden states, float32 (tokens, hidden_size).
HiddenStates = NDArray[np.float32]
FinishReason = Literal["stop", "length"]


class Step(Protocol):
    """One sequence, token by token."""

    def prefill(self, ids: Sequence[int]) -> Scores:
        """Start the sequence with these tokens; returns the logits after the last, or the likeliest tokens."""

    def next(self, token: int) -> Scores:
        """Append a token; returns the logits after it, or the likeliest tokens."""


class DraftStep(Step, Protocol):
    """A model that proposes tokens.

    Attributes:
        wanted: see `BatchStep`.
    """

    wanted: int | None


class SpeculativeStep(Step, Protocol):
    """A model that can run several tokens at once and drop the last of them."""

    @property
    def room(self) -> int:
        """Tokens that can be fed to `extend`."""

    def extend(self, tokens: Sequence[int]) -> Table:
        """Append tokens; returns the logits after each, or the likeliest tokens, valid until the next call."""

    def trim(self, count: int) -> None:
        """Drop the last `count` tokens."""


class KeepingStep(SpeculativeStep, Protocol):
    """A model that keeps its KV cache for the next prompt."""

    def shared(self, ids: Sequence[int]) -> int:
        """How many of the first tokens `prefill` would not run, because they are in the KV cache."""


class ShiftableStep(KeepingStep, Protocol):
    """A model that can rerun its sequence from any token."""

    @property
    def ids(self) -> Sequence[int]:
        """The tokens in the KV cache."""


class BranchingStep(Protocol):
    """A model that runs several candidates for the next token at once and returns hidden states."""

    def prefill(self, ids: Sequence[int]) -> tuple[Logits, HiddenStates]:
        """Start with a prompt; returns the logits after its last token, (vocab_size,), and all its hidden states."""

    def branch(self, tokens: NDArray[np.int64], row: int) -> tuple[Logits, HiddenStates]:
        """Append each token to the sequence that ended with candidate `row` of the call before.

        Returns:
            logits (tokens, vocab_size) and hidden states (tokens, hidden_size), valid until the next call.
        """


class BatchStep(Protocol):
    """Several sequences at once.

    Attributes:
        wanted: how many of the likeliest tokens the next call may return in place of logits; None for all logits.
    """

    wanted: int | None

    def prefill(self, rows: Sequence[Sequence[int]]) -> Table:
        """Start with a row per prompt, of any lengths.

        Returns the logits after each, float32 (rows, vocab_size), or the likeliest tokens.
        """

    def next(self, tokens: Sequence[int], parents: Sequence[int]) -> Table:
        """Row i of the new batch is row parents[i] of the current one with tokens[i] appended.

        The number of rows may grow (after prefill: num_beams per prompt), shrink (finished rows leave) or stay.
        Returns logits, float32 (len(tokens), vocab_size), or the likeliest tokens, valid until the next call.
        """


class OpenBatchStep(BatchStep, Protocol):
    """A batch that rows may leave and join between steps."""

    def select(self, parents: Sequence[int]) -> None:
        """Make row i a copy of the current row `parents[i]`, without running the model."""

    def join(self, rows: Sequence[Sequence[int]]) -> Table:
        """Add rows after the others, at least one.

        Returns the logits after each one's last token, float32 (rows, vocab_size), or the likeliest tokens, valid
        until the next call.
        """
