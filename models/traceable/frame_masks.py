"""Masks of audio frames after a model's convolutions, computed in a way that can be traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_METHOD = "_get_feature_vector_attention_mask"


@contextmanager
def traceable_frame_masks(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, modules of `model` compare positions with lengths.

    transformers writes a one at each row's last frame, in place, and sums up from there, which the exporter to ONNX
    gets wrong.
    """
    changed = [module for module in model.modules() if hasattr(module, _METHOD)]
    for module in changed:
        setattr(module, _METHOD, _by_length(module))
    try:
        yield
    finally:
        for module in changed:
            del module.__dict__[_METHOD]


def _by_length(module: Any) -> Any:
    def frame_mask(feature_vector_length: int, attention_mask: torch.Tensor) -> torch.Tensor:
        lengths = module._get_feat_extract_output_lengths(attention_mask.sum(-1))
        return (torch.arange(feature_vector_length) < lengths[:, None]).to(attention_mask.dtype)

    return frame_mask
