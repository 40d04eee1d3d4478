"""Adapts experts that do not use transformers' ExpertsInterface: gives them its attributes, and a forward for it.

Their weights become those of one layout: `gate_up_proj` (experts, 2 * columns, hidden_size), the gate first, and
`down_proj` (experts, hidden_size, columns).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from triform.models.patching import kind_of, patched

_LAYOUT = {
    "has_gate": True, "has_bias": False, "is_transposed": False, "is_concatenated": True,
    "has_post_expert_norm": False, "_is_expert_parallel": False,
}  # fmt: skip
Compute = Callable[[Any, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def adapt_experts(experts: torch.nn.Module, compute: Compute) -> None:
    """Have such experts call `compute`, and routers that cannot be traced route as they do; others stay as they are.

    Args:
        experts: changed in place.
        compute: called with the module, and as `compute_experts`.
    """
    adapt = _ADAPTERS.get(kind_of(experts))
    if kind_of(experts) in _LIMITED_BY_ROW:
        experts.forward = _routed_by_row(experts)
    if adapt is not None:
        vars(experts).update(_LAYOUT)
        adapt(experts, compute)


@contextmanager
def unlimited_experts(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, each expert takes all tokens that choose it, as it does where a text is run by the token.

    Args:
        model: a decoder, whose tokens transformers runs one by one.
    """
    with patched((module, _CAPACITY, sys.maxsize) for module in model.modules() if hasattr(module, _CAPACITY)):
        yield


def shares_experts(model: torch.nn.Module) -> bool:
    """Whether the tokens of all rows of a batch share the limits of a model's experts."""
    return any(hasattr(module, _CAPACITY) and kind_of(module) not in _LIMITED_BY_ROW for module in model.modules())


def _with_identities(experts: Any, compute: Compute) -> None:
    """Of LongCat-Flash: the last experts give what they are given."""
    experts.num_experts = experts.num_routed_experts
    # The last ones have weights too, which nothing reads.
    experts.gate_up_proj = _fixed(experts.gate_up_proj[: experts.num_experts])
    experts._apply_gate = _gate_by(experts.act_fn)

    def forward(hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor) -> torch.Tensor:
        is_identity = top_k_index >= experts.num_experts
        kept = torch.where(is_identity, top_k_weights, 0.0).sum(-1, keepdim=True)
        # A token that chooses such an expert has a weight of 0 for another in its place.
        index = torch.where(is_identity, 0, top_k_index)
        weights = torch.where(is_identity, 0.0, top_k_weights)
        return compute(experts, hidden_states, index, weights) + hidden_states * kept

    experts.forward = forward


def _stacked(experts: Any, compute: Compute) -> None:
    """Of DBRX: each matrix has the weights of all experts one below the other."""
    gate, up, down = (
        weight.detach().unflatten(0, (experts.num_experts, -1))
        for weight in (experts.mlp.w1, experts.mlp.v1, experts.mlp.w2)
    )
    experts.gate_up_proj = _fixed(torch.cat([gate, up], 1))
    experts.down_proj = _fixed(down.transpose(1, 2).contiguous())
    experts._apply_gate = _gate_by(experts.mlp.activation_fn)
    del experts.mlp

    def forward(hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor) -> torch.Tensor:
        return compute(experts, hidden_states.flatten(0, 1), top_k_index, top_k_weights).view_as(hidden_states)

    experts.forward = forward


def _routed_by_row(router: Any) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Of Switch Transformers, which converts its own weights at each call."""

    def forward(hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = router.classifier(hidden_states)
        probability, index = logits.softmax(-1).max(-1, keepdim=True)
        chosen = (index == torch.arange(router.num_experts)).to(torch.int64)
        kept = chosen * (chosen.cumsum(-2) <= router.expert_capacity)
        return kept, probability, logits

    return forward


def _chosen_by_mask(experts: Any, compute: Compute) -> None:
    """Of Switch Transformers: modules of their own, each with a product before and after its activation."""
    parts = list(experts.values())
    experts.clear()
    experts.has_gate, experts.act_fn = False, parts[0].act
    experts.up_proj = _fixed(torch.stack([part.wi.weight.detach() for part in parts]))
    experts.down_proj = _fixed(torch.stack([part.wo.weight.detach() for part in parts]))

    def forward(hidden_states: torch.Tensor, selected: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        # All zeros where the expert of a token takes no more of them.
        return compute(experts, hidden_states, selected.argmax(-1), weights * selected.sum(-1))

    experts.forward = forward


def _fixed(weights: torch.Tensor) -> torch.nn.Parameter:
    return torch.nn.Parameter(weights, requires_grad=False)


def _gate_by(activation: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    def gate(values: torch.Tensor) -> torch.Tensor:
        gates, ups = values.chunk(2, dim=-1)
        return activation(gates) * ups

    return gate


_ADAPTERS: dict[str, Callable[[Any, Compute], None]] = {
    "modeling_longcat_flash.LongcatFlashExperts": _with_identities,
    "modeling_dbrx.DbrxExperts": _stacked,
    "modeling_switch_transformers.SwitchTransformersExperts": _chosen_by_mask,
}
# The attribute of a router that limits how many tokens an expert takes.
_CAPACITY = "expert_capacity"
# Routers that count the tokens of each row by themselves, from its beginning, so that padding takes no token's place.
_LIMITED_BY_ROW = ("modeling_switch_transformers.SwitchTransformersTop1Router",)
