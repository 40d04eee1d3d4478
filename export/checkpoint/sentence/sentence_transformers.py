"""Reads sentence-transformers folders: the modules after the transformer, and the prompts.

Every module and every setting is used, or refused by its name. The documentation of sentence-transformers describes
the format under "Creating Custom Models".
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer
from tokenizers.normalizers import Lowercase, Replace, Sequence
from transformers import PretrainedConfig

from triform.export.checkpoint.files.json_files import first_object, read_object, read_objects
from triform.export.checkpoint.sentence.layers import check_keys, read_layer
from triform.models.encoder.pooling import POOLINGS
from triform.runtime.bundle.manifest import RELEVANCE, Relevance
from triform.runtime.errors import ExportError

MODULES = "modules.json"
# The one capital whose small letter depends on its place: at the end of a word.
_FINAL_SIGMA = r"(?<=\p{L})Σ(?!\p{L})"
_OVERALL = "config_sentence_transformers.json"
# The order of modules.
_ORDER = {"Transformer": 0, "Pooling": 1, "Dense": 2, "LayerNorm": 2, "Dropout": 2, "Normalize": 3}
# What the transformer was called before release 0.3, one class for each kind.
_OLD_TRANSFORMERS = {"BERT", "RoBERTa", "DistilBERT", "ALBERT", "CamemBERT", "XLMRoBERTa", "XLNet"}
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
_TRANSFORMER_KEYS = {
    "max_seq_length", "do_lower_case", "transformer_task", "modality_config", "module_output_name", "unpad_inputs",
}  # fmt: skip
# Arguments of `from_pretrained`, by their names before and since release 5.4.
_ARGUMENTS = ("model_args", "tokenizer_args", "config_args", "model_kwargs", "processor_kwargs", "config_kwargs")
# Arguments of `from_pretrained` that do not change the outputs in float32 without padding.
_HARMLESS_ARGUMENTS = {
    "dtype", "torch_dtype", "attn_implementation", "device_map", "low_cpu_mem_usage", "use_safetensors", "use_fast",
    "trust_remote_code", "revision", "code_revision", "token", "cache_dir", "local_files_only", "padding_side",
}  # fmt: skip
# The transformer's output and its name, for each task that is supported.
_OUTPUTS = {
    "feature-extraction": ("last_hidden_state", "token_embeddings"),
    "sequence-classification": ("logits", "scores"),
}
_OVERALL_KEYS = {
    "__version__", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "model_type",
    "activation_fn", "requirements", "keep_in_fp32_modules",
}  # fmt: skip
_MODEL_TYPES = ("SentenceTransformer", "CrossEncoder")
_WIDTHS = ("word_embedding_dimension", "embedding_dimension")
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True)
class SentenceModules:
    """What turns token vectors into one vector.

    Attributes:
        pooling: names of `POOLINGS`; several are concatenated.
        dense: layers after it, in order.
        normalize: whether the vector is scaled to length 1.
        width: of the token vectors; None where the folder does not say.
        dimensions: how many of the vector's first numbers are kept; None for all.
        prompts: texts to put before an input, by name.
        default_prompt: the name of the one to use when none is named.
        max_length: tokens the model was trained to read; None if the folder does not say.
        lower_case: whether texts are lowercased first.
        include_prompt: whether the tokens of a prompt count in the pooling.
    """

    pooling: tuple[str, ...] = ("mean",)
    dense: tuple[torch.nn.Module, ...] = ()
    normalize: bool = False
    width: int | None = None
    dimensions: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    max_length: int | None = None
    lower_case: bool = False
    include_prompt: bool = True


def sentence_task(folder: Path) -> str | None:
    """The task that a folder's modules.json implies; None without a modules.json.

    Raises:
        ExportError: a file is damaged, or there is a module, or an order of them, that is not supported.
    """
    if not (folder / MODULES).is_file():
        return None
    listed = _listed(folder)
    if [kind for kind, _ in listed] == ["Transformer"]:
        task = str(_reading(listed[0][1]).get("transformer_task"))
        if task != "sequence-classification":
            raise ExportError(f"{folder / MODULES} has a Transformer for {task} alone, which is not supported")
        return "text-classification"
    _check_order(folder / MODULES, [kind for kind, _ in listed])
    return "feature-extraction"


def read_modules(folder: Path) -> SentenceModules | None:
    """Read a folder's modules.json and what it names; None when there is none.

    Raises:
        ExportError: a file is damaged, or a module or a setting of one is not supported.
    """
    if not (folder / MODULES).is_file():
        return None
    listed = _listed(folder)
    if [kind for kind, _ in listed] == ["Transformer"]:
        return _read_transformer(folder, listed[0][1], "sequence-classification")
    _check_order(folder / MODULES, [kind for kind, _ in listed])
    layers = [read_layer(kind, place) for kind, place in listed[2:]]
    read = _read_transformer(folder, listed[0][1], "feature-extraction")
    path = listed[1][1] / "config.json"
    pooling = read_object(path)
    check_keys(path, pooling, {*_FLAGS, *_WIDTHS, "pooling_mode", "include_prompt"})
    return dataclasses.replace(
        read,
        pooling=_pooling(path, pooling),
        dense=tuple(layer for layer in layers if layer is not None),
        normalize=listed[-1][0] == "Normalize",
        width=next((int(pooling[name]) for name in _WIDTHS if pooling.get(name)), None),
        include_prompt=pooling.get("include_prompt") is not False,
    )


def _read_transformer(folder: Path, place: Path, task: str) -> SentenceModules:
    """How a text is read, by the first module's config and the folder's own."""
    reading = _reading(place)
    if (reading.get("transformer_task") or task) != task:
        raise ExportError(f"{place} is for {reading['transformer_task']}, but its modules are for {task}")
    overall = first_object(folder, (_OVERALL,))
    check_keys(folder / _OVERALL, overall, _OVERALL_KEYS)
    if overall.get("model_type") not in (None, *_MODEL_TYPES):
        raise ExportError(f"{folder / _OVERALL} says that it is a {overall['model_type']}, which is not supported")
    prompts, default = read_prompts(folder)
    return SentenceModules(
        dimensions=_number(folder / _OVERALL, overall, "truncate_dim"),
        prompts=prompts,
        default_prompt=default,
        max_length=_number(place, reading, "max_seq_length"),
        lower_case=bool(reading.get("do_lower_case")),
    )


def read_prompts(folder: Path) -> tuple[dict[str, str], str | None]:
    """A folder's prompts by name, and the name of the default.

    Raises:
        ExportError: they are damaged.
    """
    path = folder / _OVERALL
    config = first_object(folder, (path.name,))
    prompts, default = config.get("prompts") or {}, config.get("default_prompt_name")
    if not isinstance(prompts, dict) or not all(isinstance(text, str | None) for text in prompts.values()):
        raise ExportError(f"{path}: prompts must be an object with texts")
    if default is not None and default not in prompts:
        raise ExportError(f"{path} has no prompt called {default!r}")
    return {name: text or "" for name, text in prompts.items()}, default


def static_modules(folder: Path) -> tuple[Path, bool]:
    """Where a folder of static embeddings has its table, and whether vectors are scaled to length 1.

    Raises:
        ExportError: a file is damaged, or there are modules besides the table and a Normalize.
    """
    path = folder / MODULES
    listed = read_objects(path)
    kinds = [str(module.get("type", "")).rpartition(".")[2] for module in listed]
    if kinds not in (["StaticEmbedding"], ["StaticEmbedding", "Normalize"]):
        raise ExportError(f"{path} has its modules in an order that is not supported: {', '.join(kinds)}")
    if len(kinds) == 2:
        read_layer("Normalize", folder / str(listed[1].get("path", "")))
    return folder / str(listed[0].get("path", "")), len(kinds) == 2


def lower_case(tokenizer: Any) -> None:
    """Make a tokenizer of transformers lowercase texts before all else, as `str.lower` does.

    A special token with a capital, such as [MASK], is then nothing but text where a text has it.

    Raises:
        ExportError: it has no normalizer of its own to do so.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ExportError("it asks for texts in lower case (do_lower_case), which its tokenizer cannot do")
    own = backend.normalizer
    is_sequence = isinstance(own, Sequence)
    steps = list(own) if is_sequence else [] if own is None else [own]
    if not any(isinstance(step, Lowercase) for step in steps):
        backend.normalizer = Sequence([Replace(Regex(_FINAL_SIGMA), "ς"), Lowercase(), *steps])
    words, content = backend.get_vocab(with_added_tokens=False), json.loads(backend.to_str())
    content["added_tokens"] = [
        token
        for token in content["added_tokens"]
        if token["content"] == token["content"].lower() or token["content"] not in words
    ]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(content))


def relevance_of(config: PretrainedConfig, folder: Path) -> Relevance:
    """The activation that turns the logit of a cross-encoder into a score: one of the manifest's `RELEVANCE`.

    Chosen as sentence-transformers' CrossEncoder does: from the folder's own config, then from the model's under
    today's key and under that of releases before 4, else sigmoid. A function that is not torch's is ignored.

    Args:
        config: the model's.
        folder: of the model.

    Raises:
        ExportError: it is a function that is not supported, or a file is damaged.
    """
    for activation in (
        first_object(folder, (_OVERALL,)).get("activation_fn"),
        (getattr(config, "sentence_transformers", None) or {}).get("activation_fn"),
        getattr(config, "sbert_ce_default_activation_function", None),
    ):
        if activation is not None and str(activation).startswith("torch."):
            name = str(activation).rpartition(".")[2].lower()
            relevance = next((known for known in RELEVANCE if known == name), None)
            if relevance is None:
                raise ExportError(f"its config makes scores with {activation}, which is not supported")
            return relevance
    return "sigmoid"


def _reading(place: Path) -> dict[str, Any]:
    """The transformer's own config, with every setting checked."""
    config = dict(first_object(place, _TRANSFORMER_FILES))
    for name in _ARGUMENTS:
        arguments = config.pop(name, None) or {}
        check_keys(place, arguments, {*_HARMLESS_ARGUMENTS, "model_max_length"})
        # The tokenizer's argument takes precedence.
        config["max_seq_length"] = arguments.get("model_max_length", config.get("max_seq_length"))
    check_keys(place, config, _TRANSFORMER_KEYS)
    task = config.get("transformer_task") or "feature-extraction"
    if task not in _OUTPUTS:
        raise ExportError(f"{place} is for {task}, which is not supported")
    output, name = _OUTPUTS[task]
    modalities = config.get("modality_config") or {}
    text = modalities.get("text", {}) if isinstance(modalities, dict) else {}
    chats = "message" in modalities
    outputs = (
        config.get("module_output_name") or name,
        text.get("method", "forward"),
        text.get("method_output_name", output),
    )
    if chats or outputs not in ((name, "forward", output), (name, "forward", [output])):
        raise ExportError(f"{place} reads texts in a way that is not supported (modality_config, module_output_name)")
    return config


def _number(path: Path, config: Mapping[str, Any], name: str) -> int | None:
    value = config.get(name)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ExportError(f"{path}: {name} must be a number, not {value!r}")
    return value


def _listed(folder: Path) -> list[tuple[str, Path]]:
    """The kind and the folder of each module."""
    path = folder / MODULES
    modules = []
    for module in read_objects(path):
        place = str(module.get("path") or "")
        if Path(place).is_absolute() or ".." in Path(place).parts:
            raise ExportError(f"{path} names {place}, which is not inside the folder")
        modules.append((_kind(path, module), folder / place))
    return modules


def _kind(path: Path, module: dict[str, Any]) -> str:
    package, _, kind = str(module.get("type", "")).rpartition(".")
    kind = "Transformer" if kind in _OLD_TRANSFORMERS else kind
    if package.split(".")[0] != "sentence_transformers" or kind not in _ORDER:
        raise ExportError(f"{path} has a module {module.get('type')}, which is not supported")
    return kind


def _check_order(path: Path, kinds: list[str]) -> None:
    """Require a Transformer, a Pooling, any number of layers, and perhaps a Normalize."""
    places = [_ORDER[kind] for kind in kinds]
    if kinds[:2] != ["Transformer", "Pooling"] or places != sorted(places) or places.count(0) + places.count(1) != 2:
        raise ExportError(f"{path} has its modules in an order that is not supported: {', '.join(kinds) or 'none'}")


def _pooling(path: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    named = config.get("pooling_mode")
    if not named:
        return tuple(name for flag, name in _FLAGS.items() if config.get(flag)) or ("mean",)
    modes = (named,) if isinstance(named, str) else tuple(str(mode) for mode in named)
    for mode in modes:
        if mode not in POOLINGS:
            raise ExportError(f"{path} has the pooling {mode}, which is not supported")
    return modes
