"""Chooses how a mixture of experts is computed, so that it can be traced."""

from __future__ import annotations

from transformers import PreTrainedModel


def batch_experts(model: PreTrainedModel) -> None:
    """Have `model` compute its experts in batches.

    That is transformers' only implementation without a loop over data and without a custom operator. Models without
    experts stay as they are.
    """
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("batched_mm")
