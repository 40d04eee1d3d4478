"""The layers after the pooling in a sentence-transformers folder, with their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from triform.export.checkpoint.files.json_files import first_object, read_object
from triform.export.checkpoint.files.weights import find_weights, load_tensors
from triform.runtime.errors import ExportError

_VECTOR = "sentence_embedding"
# The modules of torch's activations; no other code is run.
_ACTIVATIONS = ("torch.nn.modules.activation", "torch.nn.modules.linear")
_NAMES = {"module_input_name", "module_output_name"}
_KEYS = {
    "Dense": {"in_features", "out_features", "bias", "activation_function", "use_residual", *_NAMES},
    "LayerNorm": {"dimension"},
    "Dropout": {"dropout"},
    "Normalize": _NAMES,
}


class Dense(torch.nn.Module):
    """A linear layer, its activation, and perhaps the input added to its output."""

    def __init__(self, linear: torch.nn.Linear, activation: torch.nn.Module, residual: torch.nn.Module | None) -> None:
        super().__init__()
        self.linear, self.activation, self.residual = linear, activation, residual

    def forward(self, vector: torch.Tensor) -> torch.Tensor:
        """From (batch, in_features) to (batch, out_features)."""
        output: torch.Tensor = self.activation(self.linear(vector))
        return output if self.residual is None else output + self.residual(vector)


def read_layer(kind: str, folder: Path) -> torch.nn.Module | None:
    """A module after the pooling, with its weights; None for one that computes nothing here.

    Args:
        kind: Dense, LayerNorm, Dropout or Normalize.
        folder: its own.

    Raises:
        ExportError: a file is missing or damaged, or it has a setting that is not supported.
    """
    path = folder / "config.json"
    config = read_object(path) if kind in ("Dense", "LayerNorm") else first_object(folder, (path.name,))
    check_keys(path, config, _KEYS[kind])
    for name in (config.get("module_input_name"), config.get("module_output_name")):
        if name not in (None, _VECTOR):
            raise ExportError(f"{path} works on {name}, which is not supported")
    try:
        if kind == "LayerNorm":
            norm = torch.nn.LayerNorm(config["dimension"])
            _load(folder, {"norm": norm})
            return norm.eval()
        return _dense(folder, config) if kind == "Dense" else None
    except KeyError as error:
        raise ExportError(f"{path} has no {error.args[0]}") from None


def check_keys(path: Path, config: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse a setting that is not supported, unless it is empty or off.

    Raises:
        ExportError: names it.
    """
    for key, value in config.items():
        if key not in known and value not in (None, False, "", [], {}):
            raise ExportError(f"{path} sets {key}, which is not supported")


def _dense(folder: Path, config: Mapping[str, Any]) -> torch.nn.Module:
    width, out = config["in_features"], config["out_features"]
    linear, activation = torch.nn.Linear(width, out, bias=config.get("bias", True)), _activation(folder, config)
    parts: dict[str, torch.nn.Module] = {"linear": linear}
    residual: torch.nn.Module | None = None
    if config.get("use_residual") and width == out:
        residual = torch.nn.Identity()
    elif config.get("use_residual"):
        residual = parts["residual"] = torch.nn.Linear(width, out, bias=False)
    _load(folder, parts)
    return Dense(linear, activation, residual).eval()


def _activation(folder: Path, config: Mapping[str, Any]) -> torch.nn.Module:
    # The default of sentence-transformers; null means no activation.
    name = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if name is None:
        return torch.nn.Identity()
    package, _, kind = str(name).rpartition(".")
    activation = getattr(torch.nn, kind, None) if package in _ACTIVATIONS else None
    try:
        if isinstance(activation, type) and issubclass(activation, torch.nn.Module):
            return activation()
    except TypeError:  # it needs arguments
        pass
    raise ExportError(f"{folder / 'config.json'} has the activation {name}, which is not supported")


def _load(folder: Path, parts: Mapping[str, torch.nn.Module]) -> None:
    """Load a folder's weights into the parts that they name; none may be missing or left over."""
    tensors = load_tensors(find_weights(folder))
    try:
        torch.nn.ModuleDict(dict(parts)).load_state_dict({name: value.float() for name, value in tensors.items()})
    except RuntimeError as error:
        reason = " ".join(line.strip() for line in str(error).splitlines()[1:]) or str(error)
        raise ExportError(f"the weights in {folder} do not fit its config.json: {reason}") from error
