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
from transformers import PretrainedConfig

from triform.models.encoder.pooling import POOLINGS
from triform.runtime.bundle.manifest import RELEVANCE
from triform.runtime.errors import ExportError

_ACTIVATIONS = {
    "torch.nn.modules.activation.Tanh": torch.nn.Tanh,
    "torch.nn.modules.activation.ReLU": torch.nn.ReLU,
    "torch.nn.modules.activation.GELU": torch.nn.GELU,
    "torch.nn.modules.activation.SiLU": torch.nn.SiLU,
    "torch.nn.modules.activation.Sigmoid": torch.nn.Sigmoid,
    "torch.nn.modules.linear.Identity": torch.nn.Identity,
}
# In which order modules come. Dropout does nothing once training is over.
_ORDER = {"Transformer": 0, "Pooling": 1, "Dense": 2, "LayerNorm": 2, "Dropout": 2, "Normalize": 3}
# What the transformer's file was called, first by all models and then by some old ones.
_TRANSFORMER_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
_VECTOR = "sentence_embedding"


@dataclass(frozen=True)
class SentenceModules:
    """What turns token vectors into one vector.

    Attributes:
        pooling: names of poolings, see `models.pooling`; several are joined end to end.
        dense: layers after it, in order.
        normalize: whether the vector is scaled to length 1.
        prompts: texts to put before an input, by name.
        default_prompt: the name of the one to use when none is named.
        max_length: tokens the model was trained to read; None when it does not say.
        lower_case: whether it asks for texts in lower case.
        include_prompt: whether the tokens of a prompt count in the pooling.
    """

    pooling: tuple[str, ...] = ("mean",)
    dense: tuple[torch.nn.Module, ...] = ()
    normalize: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_length: int | None = None
    lower_case: bool = False
    include_prompt: bool = True


def read_modules(folder: Path) -> SentenceModules | None:
    """Read a folder's modules.json and what it names; None when there is none.

    Raises:
        ExportError: a file is damaged, or a module is of a kind, or in a place, that is not supported.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return None
    listed = [(_kind(path, module), folder / str(module.get("path", ""))) for module in _objects(path)]
    _check_order(path, [kind for kind, _ in listed])
    for _, place in listed[2:]:
        _check_names(place)
    layers = tuple(_layer(kind, place) for kind, place in listed if kind in ("Dense", "LayerNorm"))
    reading = _first_object(listed[0][1], _TRANSFORMER_FILES)
    if reading.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise ExportError(f"{path} is for {reading['transformer_task']}, which is not supported")
    max_length = reading.get("max_seq_length")
    if not (max_length is None or isinstance(max_length, int)):
        raise ExportError(f"max_seq_length must be a number, not {max_length!r}")
    prompts, default = read_prompts(folder)
    pooling = _object(listed[1][1] / "config.json")
    return SentenceModules(
        pooling=_pooling(pooling),
        dense=layers,
        normalize=listed[-1][0] == "Normalize",
        prompts=prompts,
        default_prompt=default,
        max_length=max_length,
        lower_case=bool(reading.get("do_lower_case")),
        include_prompt=pooling.get("include_prompt") is not False,
    )


def read_prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    """A folder's prompts by name, and the name of the default.

    Raises:
        ExportError: they are damaged.
    """
    path = folder / "config_sentence_transformers.json"
    config = _first_object(folder, (path.name,))
    found, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(found, dict) or not all(isinstance(text, str | None) for text in found.values()):
        raise ExportError(f"{path}: prompts must be an object with texts")
    if default is not None and default not in found:
        raise ExportError(f"{path} has no prompt called {default!r}")
    return {name: text or "" for name, text in found.items()}, default


def static_modules(folder: Path) -> tuple[Path, bool]:
    """Where a folder of static embeddings has its table, and whether vectors are scaled to length 1.

    Raises:
        ExportError: a file is damaged, or there are modules besides the table and a Normalize.
    """
    path = folder / "modules.json"
    listed = _objects(path)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in listed]
    if kinds not in (["StaticEmbedding"], ["StaticEmbedding", "Normalize"]):
        raise ExportError(f"{path} has its modules in an order that is not supported: {', '.join(kinds)}")
    return folder / str(listed[0].get("path", "")), len(kinds) == 2


def check_case(modules: SentenceModules, tokenizer: Any) -> None:
    """Check that a tokenizer of transformers puts texts into lower case, where the folder asks for it.

    Raises:
        ExportError: it does not.
    """
    if not modules.lower_case:
        return
    backend = getattr(tokenizer, "backend_tokenizer", None)
    normalizer = None if backend is None else backend.normalizer
    if normalizer is None or normalizer.normalize_str("AÉ") not in ("aé", "ae"):
        raise ExportError("it asks for texts in lower case (do_lower_case), which its tokenizer does not do")


def relevance_of(config: PretrainedConfig, folder: Path) -> str:
    """How a cross-encoder of one label makes a score of its number: one of the manifest's `RELEVANCE`.

    As sentence-transformers' CrossEncoder chooses it: what the folder's own config says, then what the model's says
    under today's name and under that of releases before 4, then sigmoid. A function of somebody else's code counts as
    not said.

    Args:
        config: the model's.
        folder: it comes from.

    Raises:
        ExportError: it is a function that is not supported, or a file is damaged.
    """
    for said in (
        _first_object(folder, ("config_sentence_transformers.json",)).get("activation_fn"),
        (getattr(config, "sentence_transformers", None) or {}).get("activation_fn"),
        getattr(config, "sbert_ce_default_activation_function", None),
    ):
        if said is not None and str(said).startswith("torch."):
            name = str(said).rpartition(".")[2].lower()
            if name not in RELEVANCE:
                raise ExportError(f"its config makes scores with {said}, which is not supported")
            return name
    return "sigmoid"


def _kind(path: Path, module: dict[str, Any]) -> str:
    package, _, kind = str(module.get("type", "")).rpartition(".")
    if package.split(".")[0] != "sentence_transformers" or kind not in _ORDER:
        raise ExportError(f"{path} has a module {module.get('type')}, which is not supported")
    return kind


def _check_order(path: Path, kinds: list[str]) -> None:
    """Transformer, Pooling, any number of layers, Normalize or not: what one graph is made of."""
    places = [_ORDER[kind] for kind in kinds]
    if kinds[:2] != ["Transformer", "Pooling"] or places != sorted(places) or places.count(0) + places.count(1) != 2:
        raise ExportError(f"{path} has its modules in an order that is not supported: {', '.join(kinds) or 'none'}")


_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def _check_names(folder: Path) -> None:
    """Check that a module works on the vector of the whole text, not on those of its tokens."""
    config = _first_object(folder, ("config.json",))
    for name in (config.get("module_input_name"), config.get("module_output_name")):
        if name not in (None, _VECTOR):
            raise ExportError(f"{folder / 'config.json'} works on {name}, which is not supported")


def _pooling(config: dict[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    if not named:
        return tuple(name for flag, name in _FLAGS.items() if config.get(flag)) or ("mean",)
    modes = (named,) if isinstance(named, str) else tuple(str(one) for one in named)
    for mode in modes:
        if mode not in POOLINGS:
            raise ExportError(f"its pooling {mode} is not supported")
    return modes


def _layer(kind: str, folder: Path) -> torch.nn.Module:
    """A Dense or LayerNorm module with its weights."""
    path = folder / "config.json"
    config = _object(path)
    if config.get("use_residual"):
        raise ExportError(f"{path} asks for a residual connection, which is not supported")
    try:
        if kind == "LayerNorm":
            return _loaded(folder, "norm", torch.nn.LayerNorm(config["dimension"]))
        layer = torch.nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
    except KeyError as error:
        raise ExportError(f"{path} has no {error.args[0]}") from None
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in _ACTIVATIONS:
        raise ExportError(f"{path} has the activation {activation}, which is not supported")
    return torch.nn.Sequential(_loaded(folder, "linear", layer), _ACTIVATIONS[activation]()).eval()


def _loaded(folder: Path, name: str, layer: torch.nn.Module) -> torch.nn.Module:
    path = folder / "model.safetensors"
    if not path.is_file():
        raise ExportError(f"{folder} has no model.safetensors; save the model again as safetensors")
    try:
        weights = load_file(path)
        layer.load_state_dict({key.removeprefix(f"{name}."): value.float() for key, value in weights.items()})
    except Exception as error:  # safetensors and torch each have their own errors
        raise ExportError(f"{path} cannot be loaded: {str(error).splitlines()[0]}") from error
    return layer.eval()


def _first_object(folder: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """The first of these files that is there; nothing where none is."""
    return next((_object(folder / name) for name in names if (folder / name).is_file()), {})


def _object(path: Path) -> dict[str, Any]:
    content = _read(path)
    if not isinstance(content, dict):
        raise ExportError(f"{path} must hold a JSON object")
    return content


def _objects(path: Path) -> list[dict[str, Any]]:
    content = _read(path)
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise ExportError(f"{path} must hold a list of JSON objects")
    return content


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ExportError(f"{path} cannot be read: {error}") from None
