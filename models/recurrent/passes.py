"""What the convolutions and recurrences of one forward pass share: their states, and where the rows end."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from triform.models.current_pass import CurrentPass
from triform.models.spec import RecurrentState


@dataclass
class RecurrentPass:
    """The states of one forward pass.

    Attributes:
        states: outside tracing, filled by each layer in turn.
        past: while tracing, each state before the pass, float (batch, *shape); None outside tracing.
        new_lengths: while tracing, int32 (batch,), tokens of each row; what lies behind is padding.
        present: while tracing, filled with each state after the pass, in the order of `past`.
        isolated: whether no token sees any other, to find what else connects tokens; outside tracing.
    """

    states: list[RecurrentState] = field(default_factory=list)
    past: list[torch.Tensor] | None = None
    new_lengths: torch.Tensor | None = None
    present: list[torch.Tensor] = field(default_factory=list)
    isolated: bool = False
    _is_token: torch.Tensor | None = None
    _ends: dict[int, torch.Tensor] = field(default_factory=dict)

    def next_past(self) -> torch.Tensor:
        """The state of the layer that is traced now, before the pass."""
        if self.past is None:
            raise RuntimeError("there are states only while tracing")
        return self.past[len(self.present)]

    def is_token(self, length: int) -> torch.Tensor:
        """Float (batch, length, 1): 1 at tokens, 0 at padding. The same tensor for every layer."""
        if self._is_token is None:
            self._is_token = (torch.arange(length) < self._lengths()[:, None]).to(torch.float32)[..., None]
        return self._is_token

    def ends(self, width: int) -> torch.Tensor:
        """Int64 (batch, width): where the last `width` values are, once as many stand before each row."""
        if width not in self._ends:
            self._ends[width] = self._lengths()[:, None].to(torch.int64) + torch.arange(width)
        return self._ends[width]

    def _lengths(self) -> torch.Tensor:
        if self.new_lengths is None:
            raise RuntimeError("there are lengths only while tracing")
        return self.new_lengths


_CURRENT: CurrentPass[RecurrentPass] = CurrentPass("a recurrence")
carrying = _CURRENT.running
current_recurrent_pass = _CURRENT.get
