"""Loads a GGUF file as a model of transformers, with the numbers of the file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PretrainedConfig, PreTrainedModel

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.configs.config import gguf_config, pooling_of
from triform.export.checkpoint.gguf.configs.variants import architecture_of
from triform.export.checkpoint.gguf.container import GgufFile, open_gguf, split_files
from triform.export.checkpoint.gguf.generation import generation_config
from triform.export.checkpoint.gguf.numbers import FLOATS, values_of
from triform.export.checkpoint.gguf.parameters import Layout, layer_numbers, layouts_of, numbers_of
from triform.export.checkpoint.gguf.placement import Placement, place
from triform.export.checkpoint.gguf.rope import apply_frequency_factors, check_rotated_part
from triform.export.checkpoint.gguf.stored_rows import stored_rows
from triform.export.checkpoint.gguf.vocabulary.key_types import check_key_types
from triform.export.checkpoint.gguf.vocabulary.tokenizer import build_tokenizer
from triform.export.checkpoint.number_check import check_numbers
from triform.export.checkpoint.sizes import check_sizes
from triform.models.errors import first_line
from triform.models.stored_weights import StoredWeight
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
    return check_key_types(open_gguf(path))


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
    return gguf_config(file)


def read_gguf_pooling(path: Path) -> str | None:
    """The pooling mode of an embedding model, by sentence-transformers' name; None if the file does not name one.

    Raises:
        ExportError: the mode is not supported.
    """
    return pooling_of(opened(path))


def read_gguf_dense(path: Path) -> tuple[torch.nn.Module, ...]:
    """The linear layers that an embedding model has after its pooling, in order, with their weights in float32.

    Raises:
        UnsupportedError: the architecture is not supported.
    """
    file = opened(path)
    names = [name for name in architecture_of(file).dense if f"{name}.weight" in file.tensors]
    return tuple(_linear(file, name) for name in names)


def _linear(file: GgufFile, name: str) -> torch.nn.Module:
    bias = file.tensors.get(f"{name}.bias")
    state = {"weight": values_of(file.tensors[f"{name}.weight"])} | ({} if bias is None else {"bias": values_of(bias)})
    out, width = state["weight"].shape
    linear = torch.nn.Linear(width, out, bias=bias is not None)
    linear.load_state_dict({key: torch.from_numpy(array) for key, array in state.items()})
    return linear.eval()


def load_gguf_tokenizer(path: Path) -> Any:
    """The tokenizer as transformers' class, with its chat templates.

    Raises:
        ExportError: the vocabulary is damaged, or has keys that are not understood.
        UnsupportedError: it is of a kind that is not supported.
    """
    return build_tokenizer(opened(path))


def load_gguf_model(path: Path, config: PretrainedConfig, auto_class: Any, *, as_stored: bool = False) -> GgufModel:
    """Load the weights in float32.

    Args:
        path: of the file, or of one of its parts.
        config: from `read_gguf_config`.
        auto_class: the transformers class of models to make.
        as_stored: leave matrices in the blocks of the file where that is possible, see `StoredRows`.

    Raises:
        ExportError: the file has tensors that have no place in the model, or that do not fit it.
    """
    file = opened(path)
    architecture = architecture_of(file)
    empty = _empty_model(file, config, auto_class)
    parameters = empty.state_dict()
    named = {
        _name_in(parameters, f"{empty.base_model_prefix}.", name): placement
        for name, placement in place(file, architecture, _heads(config)).items()
    }
    unused = _unused(empty, architecture)
    placements = {name: found for name, found in named.items() if not any(re.search(key, name) for key in unused)}
    layouts = layouts_of(empty)
    state = {}
    for name, placement in placements.items():
        stored = _as_stored(placement, parameters.get(name), layouts.get(name)) if as_stored else None
        if stored is None:
            stored = numbers_of(placement, name, parameters, layouts.get(name, Layout()), architecture.norm_offset)
        state[name] = stored
    state |= layer_numbers(file, architecture, parameters)
    absent = _absent(empty, state)
    for name in [name for name in absent if _is_bias_of_matrix(name, parameters)]:
        # A file may have only some of the biases; transformers' config has a single setting for several of them.
        state[name] = torch.zeros(parameters[name].shape)
        absent.remove(name)
    model = type(empty).from_pretrained(None, config=config, state_dict=state, dtype=torch.float32)
    check_rotated_part(file, model)
    if architecture.frequency_factors:
        apply_frequency_factors(file, model)
    if model.can_generate():
        model.generation_config = generation_config(file, GenerationConfig.from_model_config(config))
    return GgufModel(model.eval(), tuple(absent), placements)


def _as_stored(placement: Placement, parameter: torch.Tensor | None, layout: Layout | None) -> torch.Tensor | None:
    """A parameter in the blocks of the file; None if its numbers are not the file's, row by row."""
    rows = None if parameter is None or layout is not None else stored_rows(placement)
    return None if rows is None or parameter is None or rows.shape != parameter.shape else StoredWeight(rows)


def _empty_model(file: GgufFile, config: PretrainedConfig, auto_class: Any) -> Any:
    """A model without weights.

    Raises:
        ExportError: its class cannot be made with these sizes.
    """
    try:
        with torch.device("meta"):
            return auto_class.from_config(config)
    except Exception as error:  # each class of transformers has rules of its own
        raise ExportError(
            f"no model of {config.model_type} has the sizes that {file.path.name} names: {first_line(error)}"
        ) from error


def _heads(config: PretrainedConfig) -> dict[str, int]:
    """The number of rows of the queries, keys and values, and of a head; nothing for a model without attention.

    For one with gated delta rules, also their numbers of heads and the sizes of these.
    """
    heads = getattr(config, "num_attention_heads", None)
    if not heads or getattr(config, "is_heterogeneous", False):
        # Layers with heads of different sizes have their matrices apart.
        return {}
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_value = size * (getattr(config, "num_key_value_heads", None) or getattr(config, "num_kv_heads", None) or heads)
    rules = {} if not hasattr(config, "linear_num_key_heads") else {
        "key heads": config.linear_num_key_heads, "value heads": config.linear_num_value_heads,
        "key": config.linear_key_head_dim, "value": config.linear_value_head_dim,
    }  # fmt: skip
    return {"q": size * heads, "k": key_value, "v": key_value, "head": size, **rules}


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


def _unused(model: PreTrainedModel, architecture: Architecture) -> Sequence[str]:
    """Patterns of names that a file may have and the model does not need."""
    patterns = getattr(model.base_model, "_keys_to_ignore_on_load_unexpected", None) if architecture.unread else ()
    # A model that gives vectors has no use for a head.
    return (*(patterns or ()), *(() if model.can_generate() else (r"^lm_head\.",)))


def _absent(model: PreTrainedModel, state: Mapping[str, torch.Tensor]) -> list[str]:
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    wanted = {name for name, value in model.state_dict().items() if value.is_floating_point()}
    return sorted(wanted - set(state) - tied)


def _is_bias_of_matrix(name: str, parameters: Mapping[str, torch.Tensor]) -> bool:
    weight = parameters.get(f"{name.removesuffix('.bias')}.weight")
    return name.endswith(".bias") and weight is not None and weight.ndim == 2
