"""Replaces norms and activations that are written as PyTorch arithmetic by one operator each.

A module is recognized by its results, not by its class: if the replacement computes something else, the module is
traced as it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from triform.models.patching import patched

Forward = Callable[[torch.Tensor], torch.Tensor]


@contextmanager
def single_operators(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, RMS norms and GELU or SiLU modules of `model` trace to one operator each."""
    candidates = ((module, _rms_norm(module) or _activation(module)) for module in model.modules())
    with patched((module, "forward", forward) for module, forward in candidates if forward is not None):
        yield


def _rms_norm(module: torch.nn.Module) -> Forward | None:
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    weight = dict(module.named_parameters(recurse=False)).get("weight")
    if not isinstance(epsilon, float) or len(list(module.parameters())) != 1 or weight is None or weight.dim() != 1:
        return None
    for scale in (weight.detach(), 1 + weight.detach()):
        reference = _rms_norm_by(scale, epsilon)
        if _same(module, reference, weight.shape[0]):
            return _symbolic_rms_norm(scale.clone(), epsilon)
    return None


def _rms_norm_by(scale: torch.Tensor, epsilon: float) -> Forward:
    return lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon) * scale


def _symbolic_rms_norm(scale: torch.Tensor, epsilon: float) -> Forward:
    reference = _rms_norm_by(scale, epsilon)

    def forward(x: torch.Tensor) -> torch.Tensor:
        if not torch.compiler.is_exporting():
            return reference(x)
        (output,) = torch.onnx.ops.symbolic_multi_out(
            "triform::RMSNorm", (x, scale), {"axis": -1, "epsilon": epsilon},
            dtypes=(x.dtype,), shapes=(x.shape,), version=1,
        )  # fmt: skip
        return output

    return forward


_ACTIVATIONS: tuple[Forward, ...] = (
    torch.nn.functional.silu,
    torch.nn.functional.gelu,
    lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
)


def _activation(module: torch.nn.Module) -> Forward | None:
    if (
        any(True for _ in module.parameters())
        or any(True for _ in module.children())
        or "Activation" not in type(module).__name__
    ):
        return None
    return next((candidate for candidate in _ACTIVATIONS if _same(module, candidate, 8)), None)


def _same(module: torch.nn.Module, candidate: Forward, width: int) -> bool:
    x = torch.linspace(-5, 5, 3 * width).reshape(1, 3, width)
    try:
        with torch.no_grad():
            return torch.allclose(module(x), candidate(x), atol=1e-6)
    except (TypeError, RuntimeError):
        return False
