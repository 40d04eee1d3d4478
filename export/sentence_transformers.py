"""Folders of sentence-transformers: which modules come after the transformer, and the prompts they were trained with.

Format: https://www.sbert.net/docs/sentence_transformer/usage/custom_models.html
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from triform.runtime.errors import ExportError

_ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": torch.nn.Tanh,
    "torch.nn.modules.activation.ReLU": torch.nn.ReLU,
    "torch.nn.modules.activation.GELU": torch.nn.GELU,
    "torch.nn.modules.linear.Identity": torch.nn.Identity,
}


@dataclass(frozen=True)
class SentenceModules:
    """What turns token vectors into one vector.

    Attributes:
        pooling: names of poolings, see `models.pooling`; several are joined end to end.
        dense: layers after it.
        normalize: whether the vector is scaled to length 1.
        prompts: texts to put before an input, by name.
        default_prompt: the name of the one to use when none is named.
        max_length: tokens the model was trained to read; None when it does not say.
    """

    pooling: tuple[str, ...] = ("mean",)
    dense: tuple[torch.nn.Module, ...] = ()
    normalize: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_length: int | None = None


def read_modules(folder: Path) -> SentenceModules | None:
    """Read a folder's modules.json and what it names; None when there is none.

    Raises:
        ExportError: a file is damaged, or a module is of a kind that is not supported.
    """
    if not (folder / "modules.json").is_file():
        return None
    pooling: tuple[str, ...] = ("mean",)
    dense: list[torch.nn.Module] = []
    normalize = False
    max_length = None
    for module in _read(folder / "modules.json"):
        kind, place = str(module.get("type", "")).rsplit(".", 1)[-1], folder / str(module.get("path", ""))
        if kind == "Transformer":
            path = place / "sentence_bert_config.json"
            max_length = _read(path).get("max_seq_length") if path.is_file() else None
        elif kind == "Pooling":
            pooling = _pooling(_read(place / "config.json"))
        elif kind == "Dense":
            dense.append(_dense(place))
        elif kind == "Normalize":
            normalize = True
        elif kind != "Dropout":
            raise ExportError(f"{folder / 'modules.json'} has a module {kind}, which is not supported")
    path = folder / "config_sentence_transformers.json"
    config = _read(path) if path.is_file() else {}
    return SentenceModules(
        pooling=pooling,
        dense=tuple(dense),
        normalize=normalize,
        prompts=dict(config.get("prompts") or {}),
        default_prompt=config.get("default_prompt_name"),
        max_length=max_length,
    )


_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def _pooling(config: dict[str, Any]) -> tuple[str, ...]:
    if config.get("include_prompt") is False:
        raise ExportError("its pooling leaves the prompt out, which is not supported")
    named = config.get("pooling_mode")
    if named:
        return (named,) if isinstance(named, str) else tuple(named)
    return tuple(name for flag, name in _FLAGS.items() if config.get(flag)) or ("mean",)


def _dense(folder: Path) -> torch.nn.Module:
    config = _read(folder / "config.json")
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in _ACTIVATIONS:
        raise ExportError(f"{folder / 'config.json'} has the activation {activation}, which is not supported")
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ExportError(f"{folder} has no model.safetensors; save the model again as safetensors")
    layer = torch.nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    try:
        weights = load_file(path)
        layer.load_state_dict({name.removeprefix("linear."): value.float() for name, value in weights.items()})
    except Exception as error:  # safetensors and torch each have their own errors
        raise ExportError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    return torch.nn.Sequential(layer, _ACTIVATIONS[activation]()).eval()


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from None
