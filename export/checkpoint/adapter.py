"""Merges a LoRA adapter of peft into its model's weights: W + scale * B A (Hu et al., LoRA, 2021).

DoRA (Liu et al., 2024) also gives each row of the sum a length that was trained.

The format is that of peft's checkpoints. peft itself is not a dependency, because its releases depend on those of
transformers. LoRA is the method that people publish; peft's other methods are refused by name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from triform.export.checkpoint.accounting import renamed
from triform.export.checkpoint.files.json_files import read_object
from triform.export.checkpoint.files.weights import find_weights, load_tensors
from triform.runtime.checked_json import Mismatch, build
from triform.runtime.errors import ExportError

CONFIG = "adapter_config.json"
_TASKS = {
    "CAUSAL_LM": "text-generation",
    "SEQ_2_SEQ_LM": "text2text-generation",
    "SEQ_CLS": "text-classification",
    "TOKEN_CLS": "token-classification",
    "QUESTION_ANS": "question-answering",
    "FEATURE_EXTRACTION": "feature-extraction",
}
# Keys about training or placement, which the names of the tensors give too, and keys that are used below.
_UNDERSTOOD = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "fan_in_fan_out",
    "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout",
    "megatron_core", "modules_to_save", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern",
    "revision", "runtime_config", "target_modules", "task_type", "use_dora", "use_rslora",
    "ensure_weight_tying", "eva_config",
}  # fmt: skip
# Initializations that leave the base model's weights unchanged; the others subtract something from them.
_PLAIN_BEGINNINGS = (True, False, None, "gaussian", "eva", "orthogonal")
_PREFIX = "base_model.model."
# What peft's wrappers put into names: the layer below an adapter, and the trained copy of a module beside the original.
_WRAPPED = re.compile(r"\.(base_layer|modules_to_save|original_module)(?=\.)")
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>A|B|magnitude_vector)(\.weight)?")


@dataclass
class _Factors:
    """The two factors of one module's change, (r, in) and (out, r); of an embedding (r, rows) and (width, r).

    DoRA has the lengths of the changed weight's rows, too, (out,).
    """

    embedding: bool = False
    a: torch.Tensor | None = None
    b: torch.Tensor | None = None
    magnitude_vector: torch.Tensor | None = None


@dataclass(frozen=True)
class _Settings:
    """The settings that numbers are computed with, of adapter_config.json."""

    r: int = 8
    lora_alpha: float = 8
    use_rslora: bool = False
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None

    def scale(self, name: str, rank: int) -> float:
        """Alpha / r, or alpha / sqrt(r) with rslora; some modules may have their own alpha and r.

        Raises:
            ExportError: the tensors have another rank than the config says.
        """
        configured = _of_module(self.rank_pattern, name, self.r)
        if configured != rank:
            raise ExportError(f"{CONFIG} says that {name} has the rank {configured}, but its tensors have {rank}")
        alpha = _of_module(self.alpha_pattern, name, self.lora_alpha)
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def adapter_task(folder: Path) -> str | None:
    """The task an adapter was trained for, by its name on the hub; None where its config does not say.

    Raises:
        ExportError: the config cannot be read.
    """
    return _TASKS.get(str(read_object(folder / CONFIG).get("task_type")))


def merge(model: PreTrainedModel, folder: Path) -> frozenset[str]:
    """Merge an adapter into a loaded model.

    Args:
        model: its base, in float32; changed in place.
        folder: with adapter_config.json and adapter_model.safetensors, or .bin.

    Returns:
        the names of the model's parameters that the adapter replaced, such as a new head's.

    Raises:
        ExportError: it is not a LoRA adapter, has a setting that is not supported, or does not fit the model.
    """
    settings = _settings(folder)
    trained, changes = _sorted_out(folder)
    with torch.no_grad():
        _resize(model, folder, trained)
        # peft's copies of a module, and its factors, do not reach the other layers that share a weight.
        places = {name: _place(model, folder, name) for name in (*trained, *(f"{name}.weight" for name in changes))}
        shared = _untie(model, places.values())
        for name, value in trained.items():
            _replace(model, folder, name, places[name], value)
        for module, factors in changes.items():
            _add(model, folder, module, places[f"{module}.weight"], factors, settings)
        _tie_equals(model, shared)
    return frozenset(places[name] for name in trained)


def _sorted_out(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, _Factors]]:
    """An adapter's tensors: those that replace the model's by name, and the factors of its changes by module."""
    trained: dict[str, torch.Tensor] = {}
    originals: dict[str, torch.Tensor] = {}
    changes: dict[str, _Factors] = {}
    for name, value in load_tensors(_files(folder)).items():
        name = name.removeprefix(_PREFIX)
        matched = _FACTOR.fullmatch(name)
        if matched is not None:
            factors = changes.setdefault(matched["module"], _Factors(matched["embedding"] is not None))
            setattr(factors, matched["factor"].lower(), value.float())
            continue
        plain = _WRAPPED.sub("", name)
        held = originals if ".original_module." in name else trained
        if plain in held and not torch.equal(held[plain], value):
            raise ExportError(f"{folder} holds {plain} twice, with other numbers; merge the adapter with peft first")
        held[plain] = value
    if not trained and not changes:
        raise ExportError(f"{folder} holds an adapter without tensors, which changes nothing; save it again")
    return trained | {name: value for name, value in originals.items() if name not in trained}, changes


def _resize(model: PreTrainedModel, folder: Path, trained: Mapping[str, torch.Tensor]) -> None:
    """Give the model as many tokens as the adapter's embeddings have, which are trained whole where they are others."""
    ends = [layer for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None]
    names = {f"{name}.weight": layer for name, layer in model.named_modules() if layer in ends}
    held = {place: value for name, value in trained.items() if (place := renamed(model, name)) in names}
    sizes = {len(value) for place, value in held.items() if value.dim() == 2}
    if not sizes or all(len(names[place].weight) == len(value) for place, value in held.items()):
        return
    given = {names[place] for place in held}
    tied = {id(layer.weight) for layer in given}
    if len(sizes) > 1 or not all(layer in given or id(layer.weight) in tied for layer in ends):
        raise ExportError(
            f"{folder} changes the number of tokens of its base model, {len(ends[0].weight)}, but not all layers that "
            f"have one for each: it holds {', '.join(sorted(held))}; merge the adapter with peft first"
        )
    model.resize_token_embeddings(sizes.pop(), mean_resizing=False)


def _files(folder: Path) -> Any:
    return find_weights(folder, "adapter_model")


def _settings(folder: Path) -> _Settings:
    path = folder / CONFIG
    config = read_object(path)
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ExportError(
            f"{path} is the config of a {kind} adapter, but only LORA is supported; merge the adapter with peft first"
        )
    for key, value in config.items():
        if key not in _UNDERSTOOD and value not in (None, False, "", [], {}):
            raise ExportError(f"{path} sets {key}, which is not supported; merge the adapter with peft first")
    start = config.get("init_lora_weights", True)
    if start not in _PLAIN_BEGINNINGS:
        raise ExportError(
            f"{path} has init_lora_weights {start}, which changes the base model too; merge the adapter with peft first"
        )
    try:
        settings: _Settings = build(_Settings, config)
    except Mismatch as mismatch:
        raise ExportError(f"{path}: {mismatch}; correct it, or fetch the adapter again") from None
    return settings


def _replace(model: PreTrainedModel, folder: Path, name: str, target: str, value: torch.Tensor) -> None:
    """Replace a tensor of the model by the adapter's: a bias, or part of a fully trained module."""
    own = model.get_parameter(target)
    if own.shape != value.shape:
        raise ExportError(
            f"{folder} holds {name} of the shape {tuple(value.shape)}, but its base model has {tuple(own.shape)}; "
            "merge the adapter with peft first"
        )
    own.copy_(value)


def _add(model: PreTrainedModel, folder: Path, name: str, target: str, factors: _Factors, settings: _Settings) -> None:
    """Add one module's change to its weight."""
    if factors.a is None or factors.b is None:
        raise ExportError(f"{folder} holds only one of the two factors of {name}")
    # Experts are no modules, but parts of one tensor.
    layer = dict(model.named_modules()).get(target.removesuffix(".weight"))
    kind = torch.nn.Embedding if factors.embedding else (torch.nn.Linear, Conv1D)
    if not isinstance(layer, kind) or (factors.embedding and factors.magnitude_vector is not None):
        what = "one of several experts in one tensor" if layer is None else f"the module {type(layer).__name__}"
        what += "" if factors.magnitude_vector is None else " with use_dora"
        raise ExportError(f"{folder} adapts {name}, {what}, which is not supported; merge it with peft first")
    change = settings.scale(name, len(factors.a)) * (factors.b @ factors.a)
    # GPT-2's layers, and embeddings, keep their weights transposed.
    if factors.embedding or isinstance(layer, Conv1D):
        change = change.T
    if change.shape != layer.weight.shape:
        raise ExportError(
            f"{folder} changes {name} by a matrix {tuple(change.shape)}, but its weight is {tuple(layer.weight.shape)}"
        )
    layer.weight.add_(change)
    if factors.magnitude_vector is not None:
        # One length for each output, which are the columns of GPT-2's layers.
        inputs = 0 if isinstance(layer, Conv1D) else 1
        layer.weight.mul_(factors.magnitude_vector.unsqueeze(inputs) / layer.weight.norm(dim=inputs, keepdim=True))


def _of_module(patterns: Mapping[str, Any] | None, name: str, default: Any) -> Any:
    """The value of the first pattern that a module's name ends with, as peft matches them."""
    try:
        return next(
            (value for pattern, value in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", name)), default
        )
    except re.error as error:
        raise ExportError(f"{CONFIG} has a pattern for names that is none: {error}") from error


def _place(model: PreTrainedModel, folder: Path, name: str) -> str:
    """The model's own name of a parameter."""
    if ".lora_" in name or ".token_adapter." in name:
        raise ExportError(f"{folder} holds {name}, which is not supported; merge the adapter with peft first")
    target = renamed(model, name)
    if target not in dict(model.named_parameters(remove_duplicate=False)):
        raise ExportError(f"{folder} changes {name}, which its base model, a {type(model).__name__}, does not have")
    return target


def _untie(model: PreTrainedModel, changed: Iterable[str]) -> list[set[str]]:
    """Give each changed parameter that others are tied to numbers of its own; return the names that were tied."""
    groups: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), set()).add(name)
    wanted = set(changed)
    shared = [names for names in groups.values() if len(names) > 1 and names & wanted]
    for names in shared:
        for name in names & wanted:
            _set(model, name, torch.nn.Parameter(model.get_parameter(name).clone()))
    return shared


def _tie_equals(model: PreTrainedModel, shared: Iterable[set[str]]) -> None:
    """Make one parameter again of those that the adapter changed in the same way."""
    for names in shared:
        first, *others = sorted(names)
        weight = model.get_parameter(first)
        for name in others:
            if torch.equal(model.get_parameter(name), weight):
                _set(model, name, weight)


def _set(model: PreTrainedModel, name: str, parameter: torch.nn.Parameter) -> None:
    place, _, last = name.rpartition(".")
    setattr(model.get_submodule(place), last, parameter)
