"""Traces convolutions along a text as matrix products, so that their weights are quantized like those of a Linear."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from triform.models.patching import patched


@contextmanager
def as_products(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, one-dimensional convolutions of `model` trace to one Linear each.

    Only those without groups, dilation and padding, whose stride is 1 or the size of the kernel.
    """
    convolutions = [module for module in model.modules() if type(module) is torch.nn.Conv1d and _is_supported(module)]
    with patched((module, "forward", _product(module)) for module in convolutions):
        yield


def _is_supported(module: torch.nn.Conv1d) -> bool:
    plain = (module.groups, module.dilation, module.padding) == (1, (1,), (0,))
    return plain and module.stride in ((1,), module.kernel_size)


def _product(module: torch.nn.Conv1d) -> Callable[[torch.Tensor], torch.Tensor]:
    size, stride = module.kernel_size[0], module.stride[0]
    weight = module.weight.detach().transpose(1, 2).flatten(1).contiguous()
    bias = None if module.bias is None else module.bias.detach()

    def forward(x: torch.Tensor) -> torch.Tensor:
        batch, channels, length = x.shape
        states = x.transpose(1, 2)
        if stride == size:
            count = length // size
            windows = states[:, : count * size].reshape(batch, count, size * channels)
        else:
            count = length - size + 1
            windows = torch.cat([states.narrow(1, start, count) for start in range(size)], dim=-1)
        return torch.nn.functional.linear(windows, weight, bias).transpose(1, 2)

    return forward
