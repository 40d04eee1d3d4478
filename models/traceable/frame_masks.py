"""Computes the mask of the frames after a model's convolutions in a way that can be traced."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from triform.models.patching import patched

_MASK = "_get_feature_vector_attention_mask"
# Enough input for some frames of any model.
_EXAMPLE = 20000


@contextmanager
def traceable_frame_masks(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, modules of `model` compute masks by comparing positions with lengths.

    transformers writes a one at each row's last frame, in place, and sums up from there, which torch.onnx gets wrong.
    """
    modules = [module for module in model.modules() if hasattr(module, _MASK)]
    with patched((module, _MASK, _by_length(module)) for module in modules):
        yield


def _by_length(module: Any) -> Any:
    # Some models negate their masks, which differs between numbers and truths.
    dtype = _dtype(module)

    def frame_mask(feature_vector_length: int, attention_mask: torch.Tensor, **options: Any) -> torch.Tensor:
        lengths = module._get_feat_extract_output_lengths(attention_mask.sum(-1), **options)
        return (torch.arange(feature_vector_length) < lengths[:, None]).to(dtype)

    return frame_mask


def _dtype(module: Any) -> torch.dtype:
    """The dtype of the module's own mask of frames, for a mask of integers."""
    mask = torch.ones(1, _EXAMPLE, dtype=torch.int64)
    count = int(module._get_feat_extract_output_lengths(mask.sum(-1)))
    result: torch.Tensor = getattr(module, _MASK)(count, mask)
    return result.dtype
