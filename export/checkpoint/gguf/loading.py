"""Loads a GGUF file as a model of transformers, with the numbers of the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from triform.export.checkpoint.gguf import config as configs
from triform.export.checkpoint.gguf.container import GgufFile, open_gguf, split_files
from triform.export.checkpoint.gguf.generation import generation_config
from triform.export.checkpoint.gguf.numbers import FLOATS, values_of
from triform.export.checkpoint.gguf.placement import Placement, place
from triform.export.checkpoint.gguf.rope import apply_frequency_factors, check_rotated_part
from triform.export.checkpoint.gguf.vocabulary.tokenizer import build_tokenizer
from triform.export.checkpoint.number_check import check_numbers
from triform.export.checkpoint.sizes import check_sizes
from triform.runtime.errors import ExportError


@dataclass(frozen=True)
class GgufModel:
    """A loaded model.

    Attributes:
        model: in float32, on CPU, in evaluation mode.
        missing: names of parameters that the file has nothing for.
        placements: where each parameter is in the file, by name.
    """

    model: PreTrainedModel
    missing: tuple[str, ...]
    placements: Mapping[str, Placement]


def opened(path: Path) -> GgufFile:
    """The file, read once for the config, the weights and the tokenizer.

    Raises:
        ExportError: it is damaged.
    """
    status = path.stat()
    return _opened(path, status.st_ino, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1)
def _opened(path: Path, *_: int) -> GgufFile:
    # The other arguments make the cache miss if another file has taken the place of this one.
    return open_gguf(path)


def is_quantized(path: Path) -> bool:
    """Whether a file's matrices are stored in blocks, and not as floats.

    Raises:
        ExportError: it is damaged.
    """
    return any(tensor.format not in FLOATS for tensor in opened(path).tensors.values())


def read_gguf_config(path: Path) -> PretrainedConfig:
    """The config of a model.

    Raises:
        ExportError: the file is damaged, or has keys that are not understood.
        UnsupportedError: the architecture is not supported.
    """
    file = opened(path)
    check_sizes(
        path.name, file.values, tensors=len(file.tensors), size=sum(part.stat().st_size for part in split_files(path))
    )
    check_numbers(path.name, file.values)
    return configs.gguf_config(file)


def read_gguf_pooling(path: Path) -> str | None:
    """The pooling mode of an embedding model, by sentence-transformers' name; None if the file does not name one.

    Raises:
        ExportError: the mode is not supported.
    """
    return configs.pooling_of(opened(path))


def load_gguf_tokenizer(path: Path) -> Any:
    """The tokenizer as transformers' class, with its chat templates.

    Raises:
        ExportError: the vocabulary is damaged, or has keys that are not understood.
        UnsupportedError: it is of a kind that is not supported.
    """
    return build_tokenizer(opened(path))


def load_gguf_model(path: Path, config: PretrainedConfig, auto_class: Any) -> GgufModel:
    """Load the weights in float32.

    Args:
        path: of the file, or of one of its parts.
        config: from `read_gguf_config`.
        auto_class: the transformers class of models to make.

    Raises:
        ExportError: the file has tensors that have no place in the model, or that do not fit it.
    """
    file = opened(path)
    architecture = configs.architecture_of(file)
    with torch.device("meta"):
        empty = auto_class.from_config(config)
    parameters = empty.state_dict()
    placements = {
        _name_in(parameters, f"{empty.base_model_prefix}.", name): placement
        for name, placement in place(file, architecture, _heads(config)).items()
    }
    layouts = _layouts(empty)
    state = {
        name: _numbers(placement, name, parameters, layouts.get(name, Layout()), architecture.norm_offset)
        for name, placement in placements.items()
    }
    absent = _absent(empty, state)
    for name in [name for name in absent if _is_bias_of_matrix(name, parameters)]:
        # A file may have only some of the biases; transformers' config has a single setting for several of them.
        state[name] = torch.zeros(parameters[name].shape)
        absent.remove(name)
    model = type(empty).from_pretrained(None, config=config, state_dict=state, dtype=torch.float32)
    check_rotated_part(file, model)
    apply_frequency_factors(file, model)
    if model.can_generate():
        model.generation_config = generation_config(file, GenerationConfig.from_model_config(config))
    return GgufModel(model.eval(), tuple(absent), placements)


def _heads(config: PretrainedConfig) -> dict[str, int]:
    """The number of rows of the queries, keys and values, and of a head; nothing for a model without attention."""
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return {}
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_value = size * (getattr(config, "num_key_value_heads", None) or getattr(config, "num_kv_heads", None) or heads)
    return {"q": size * heads, "k": key_value, "v": key_value, "head": size}


def _name_in(parameters: Mapping[str, torch.Tensor], prefix: str, name: str) -> str:
    """The name of a parameter in a class of models, which may have the prefix of its base model or lack it.

    Parameters that are not those of a layer of their own, such as those of experts, lack the end as well.
    """
    ends = [name]
    if name.endswith(".weight"):
        ends.append(name.removesuffix(".weight"))
    if name.endswith(".bias"):
        ends += [f"{name.removesuffix('.bias')}_bias", name.removesuffix(".bias")]
    candidates = [candidate for end in ends for candidate in (end, end.removeprefix(prefix), f"{prefix}{end}")]
    return next((candidate for candidate in candidates if candidate in parameters), name)


@dataclass(frozen=True)
class Layout:
    """How a class of models stores a parameter.

    Attributes:
        turned: whether the last two dimensions are exchanged.
        interleaved: whether the rows of two tensors alternate, instead of following each other.
    """

    turned: bool = False
    interleaved: bool = False


def _layouts(model: PreTrainedModel) -> dict[str, Layout]:
    """The layouts that are not the usual one, by the parameter's name."""
    found = {
        f"{name}.weight": Layout(turned=True) for name, module in model.named_modules() if isinstance(module, Conv1D)
    }
    for name, module in model.named_modules():
        if hasattr(module, "is_transposed") and hasattr(module, "is_concatenated"):
            for own, parameter in module.named_parameters(recurse=False):
                matrices = parameter.ndim == 3
                found[f"{name}.{own}"] = Layout(
                    turned=bool(module.is_transposed) and matrices, interleaved=not module.is_concatenated
                )
    return found


def _numbers(
    placement: Placement, name: str, parameters: Mapping[str, torch.Tensor], layout: Layout, norm_offset: float
) -> torch.Tensor:
    if name not in parameters:
        raise ExportError(f"{placement.tensor.name} has no place in the model ({name})")
    values = _both(placement, layout)
    if norm_offset and name.endswith("norm.weight"):
        values -= norm_offset
    if layout.turned:
        values = values.transpose(-1, -2).contiguous()
    if name.endswith(".A_log"):
        values = _logarithm(values, placement)
    values = _with_channels(values, parameters[name].shape)
    if values.shape != parameters[name].shape:
        raise ExportError(
            f"{placement.tensor.name} is {list(placement.tensor.shape)}, but by the file's keys it would be "
            f"{list(parameters[name].shape)}"
        )
    return values


def _logarithm(values: torch.Tensor, placement: Placement) -> torch.Tensor:
    """The logarithm of rates of decay, which a file has as they are, below 0."""
    if not bool((values < 0).all()):
        raise ExportError(f"{placement.tensor.name} has rates of decay that are not below 0")
    return torch.log(-values)


def _with_channels(values: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Numbers with the dimension of 1 of a convolution of single channels, or as the vector that a file has in rows."""
    if values.ndim == 2 and values.unsqueeze(1).shape == shape:
        return values.unsqueeze(1)
    return values.flatten() if values.ndim == 2 and values.flatten().shape == shape else values


def _both(placement: Placement, layout: Layout) -> torch.Tensor:
    """The numbers of a placement, with those of its second tensor behind them or between them."""
    values = torch.from_numpy(values_of(placement.stored))
    if placement.second is None:
        return values
    # Experts come first in a tensor that has them; then rows.
    axis = 1 if "_exps." in placement.tensor.name else 0
    parts = (values, torch.from_numpy(values_of(placement.second)))
    if layout.interleaved:
        return torch.stack(parts, axis + 1).flatten(axis, axis + 1)
    return torch.cat(parts, axis)


def _absent(model: PreTrainedModel, state: Mapping[str, torch.Tensor]) -> list[str]:
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    return sorted(set(dict(model.named_parameters())) - set(state) - tied)


def _is_bias_of_matrix(name: str, parameters: Mapping[str, torch.Tensor]) -> bool:
    weight = parameters.get(f"{name.removesuffix('.bias')}.weight")
    return name.endswith(".bias") and weight is not None and weight.ndim == 2
