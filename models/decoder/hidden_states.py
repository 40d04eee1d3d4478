"""Adds an output to a decoder's graph: the last hidden state of every token."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from triform.models.decoder.graph import DecoderGraph
from triform.models.errors import UnsupportedModelError
from triform.models.spec import GraphSpec

LAST_HIDDEN_STATE = "last_hidden_state"


class HiddenStatesGraph(torch.nn.Module):
    """The module that is traced: a `DecoderGraph`, and the output of the model below its head."""

    def __init__(self, graph: DecoderGraph) -> None:
        super().__init__()
        self.decoder = graph
        self._states: torch.Tensor | None = None
        graph.model.get_decoder().register_forward_hook(self._keep)

    def _keep(self, _: torch.nn.Module, __: Any, output: Any) -> None:
        self._states = output.last_hidden_state

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Run one chunk of tokens. Arguments as `DecoderGraph`.

        Returns:
            the outputs of `DecoderGraph`; and the last hidden state of every token of the chunk, after the final norm,
            float (batch, sequence, hidden_size).
        """
        outputs: tuple[torch.Tensor, ...] = self.decoder(*inputs)
        if self._states is None:
            raise RuntimeError("the model below the head did not run")
        states, self._states = self._states, None
        return *outputs, states


def with_hidden_states(spec: GraphSpec) -> GraphSpec:
    """Add the output ``last_hidden_state`` to the graph of a decoder.

    Args:
        spec: from `decoder_spec`.

    Raises:
        UnsupportedModelError: the model is not a head on another model.
    """
    graph = spec.module
    if not isinstance(graph, DecoderGraph) or graph.model.get_decoder() is graph.model:
        raise UnsupportedModelError(
            "its head and the model below are one module, so its hidden states cannot be output"
        )
    return dataclasses.replace(spec, module=HiddenStatesGraph(graph), outputs=(*spec.outputs, LAST_HIDDEN_STATE))
