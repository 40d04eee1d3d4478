"""The hidden states that a float decoder graph gives, against PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from triform.export.run_graph import GraphRunner
from triform.export.verify import RELATIVE_TOLERANCE
from triform.models.hidden_states import LAST_HIDDEN_STATE
from triform.runtime.errors import ExportError

Array = NDArray[Any]


def reference_states(model: PreTrainedModel, ids: list[int]) -> Array:
    """The last of PyTorch's own hidden states, float32 (len(ids), hidden_size)."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            found = model(input_ids=torch.tensor([ids]), use_cache=False, output_hidden_states=True)
    finally:
        model.set_attn_implementation(implementation)
    states: Array = found.hidden_states[-1][0].float().numpy()
    return states


def check_states(runner: GraphRunner, expected: Array, ids: list[int]) -> None:
    """Feed `ids` in several runs and compare every token's state with PyTorch's.

    Args:
        runner: the float graph.
        expected: from `reference_states`.
        ids: at least 16 token ids.

    Raises:
        ExportError: a difference exceeds the tolerance of logits.
    """
    runner.start(1, len(ids))
    parts, done = [], 0
    for size in (len(ids) - 10, 1, 9):
        _, extra = runner.feed(np.array([ids[done : done + size]]), np.zeros((1, 1)))
        parts.append(extra[LAST_HIDDEN_STATE][0])
        done += size
    difference = float(np.abs(np.concatenate(parts) - expected).max())
    allowed = RELATIVE_TOLERANCE * float(np.abs(expected).max())
    # Written so that NaN fails too.
    if not difference <= allowed:
        raise ExportError(
            f"the exported graph does not compute what PyTorch does: hidden states differ by {difference:.2g} "
            f"(allowed {allowed:.2g}); export without --hidden-states, and please report this model"
        )
