"""Loads a checkpoint's config, and its weights in float32 or as they are stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch.nn.utils import parametrize
from transformers import AutoConfig, GenerationConfig, PretrainedConfig, PreTrainedModel
from transformers.dynamic_module_utils import get_class_from_dynamic_module
from transformers.pytorch_utils import Conv1D

from triform.export.checkpoint.accounting import (
    left_out,
    parts_lacked,
    renamed,
    unreached_parts,
    unreached_weights,
    without_weights,
)
from triform.export.checkpoint.adapter import CONFIG as ADAPTER
from triform.export.checkpoint.adapter import merge
from triform.export.checkpoint.config_check import check_config, check_rope_factors
from triform.export.checkpoint.files.json_files import read_object
from triform.export.checkpoint.files.load_report import misfits_named
from triform.export.checkpoint.files.packed.formats import method_of
from triform.export.checkpoint.files.packed.mxfp4 import as_bytes
from triform.export.checkpoint.files.packed.packing import UnpackedWeight
from triform.export.checkpoint.files.weights import integers_among, open_weights, tensor_names
from triform.export.checkpoint.gguf import loading as gguf
from triform.export.checkpoint.processors import load_tokenizer
from triform.export.checkpoint.quiet import quiet
from triform.export.checkpoint.sentence.static_vectors import is_static
from triform.export.checkpoint.settings_check import check_settings
from triform.export.checkpoint.source import Checkpoint, Source
from triform.models.catalog import class_of
from triform.models.encoder.static import StaticConfig
from triform.models.errors import first_line
from triform.models.paths import weights_not_finite
from triform.models.stored_weights import stored_weight
from triform.runtime.errors import ExportError, option

# Bytes of a GGUF file from which on its matrices are unpacked each time that they are read. That takes an export of a
# smaller one a tenth more of time, for memory that machines which export have: eight times the file at most.
LARGE_GGUF = 2**28


def read_config(source: Source) -> PretrainedConfig:
    """Read the model's config.

    Raises:
        ExportError: the config cannot be read, or has a setting that transformers would ignore.
    """
    if is_static(source.path):
        return StaticConfig()
    if source.gguf is not None:
        with quiet():
            config = gguf.read_gguf_config(source.gguf)
        check_rope_factors(source.name, config)
        return config
    check_settings(source)
    with quiet():
        try:
            config = AutoConfig.from_pretrained(source.model_folder, **source.arguments)
        except Exception as error:  # transformers raises anything from KeyError to OSError here
            raise ExportError(f"the config of {source.name} cannot be read: {first_line(error)}") from error
    check_config(source, config)
    check_rope_factors(source.name, config)
    return config


def has_blocks(source: Source) -> bool:
    """Whether matrices are stored in blocks of integers, which a decoder's bundle can keep.

    Raises:
        ExportError: a GGUF file is damaged.
    """
    if source.gguf is not None:
        return gguf.is_quantized(source.gguf)
    return source.adapter is None and any(packing.as_grid for packing in source.packings)


def load_checkpoint(
    source: Source,
    config: PretrainedConfig,
    auto_class: Any,
    *,
    unused: tuple[str, ...] = (),
    as_stored: bool = False,
) -> Checkpoint:
    """Load the weights, and the tokenizer.

    Args:
        source: from `find_checkpoint`.
        config: from `read_config`.
        auto_class: the transformers class that loads it.
        unused: parts of the model that may be missing, because no output depends on them.
        as_stored: leave matrices of 16-bit floats, and those in the blocks of large GGUF files, in their files, see
            `StoredWeight`; all are float32 otherwise, and where an adapter changes them.

    Raises:
        ExportError: weights are damaged or do not fit the config, some would be left out, or there is no usable
            tokenizer.
    """
    tokenizer = load_tokenizer(source)
    return replace(load_model(source, config, auto_class, unused=unused, as_stored=as_stored), tokenizer=tokenizer)


def load_model(
    source: Source,
    config: PretrainedConfig,
    auto_class: Any,
    *,
    unused: tuple[str, ...] = (),
    as_stored: bool = False,
) -> Checkpoint:
    """Load the weights alone. Arguments and errors as `load_checkpoint`."""
    if source.gguf is not None:
        with quiet():
            in_blocks = as_stored and source.size >= LARGE_GGUF
            loaded = gguf.load_gguf_model(source.gguf, config, auto_class, as_stored=in_blocks)
        _check_missing(source, loaded.missing, unused)
        _check_finite(source, loaded.model, loaded.missing)
        return Checkpoint(source, loaded.model, None, source.size, missing=loaded.missing, placements=loaded.placements)
    with quiet():
        try:
            model, report = _read(source, config, auto_class, as_stored and source.adapter is None)
        except ExportError as error:
            raise ExportError(f"the weights of {source.name} cannot be loaded: {error}") from error
        except Exception as error:  # transformers raises whatever its readers raise
            raise ExportError(f"the weights of {source.name} cannot be loaded: {first_line(error)}") from error
        unread: tuple[str, ...] = ()
        if source.weights is not None:
            unread = left_out(source.name, model, report["unexpected_keys"], tensor_names(source.weights))
    absent = set(report.get("missing_keys", ()))
    if source.adapter is not None:
        absent -= merge(model, source.adapter)
    _check_missing(source, sorted(absent), unused)
    _check_finite(source, model, absent)
    model.eval()
    _compute_weights(model)
    missing = tuple(sorted(absent))
    return Checkpoint(
        source, model, None, source.size, missing=missing, left_out=unread, parts_left_out=parts_lacked(model, unread),
        notes=(*_code_not_run(source, model), *_merged(source)),
    )  # fmt: skip


def _compute_weights(model: PreTrainedModel) -> None:
    """Make weights of what PyTorch computes from others at each run, as a kernel is from its direction and norm.

    A graph would hold the others in float32, since no product or convolution reads them.
    """
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)


def _code_not_run(source: Source, model: PreTrainedModel) -> tuple[str, ...]:
    """A note where a checkpoint has code of its own for what transformers has too: the two may compute other things."""
    own = getattr(model.config, "auto_map", None) or {}
    names = [str(value).partition(".")[0] for key, value in own.items() if key.startswith("AutoModel")]
    if source.trust_remote_code or not names:
        return ()
    return (
        f"{names[0]}.py, which came with the checkpoint, was not run: {type(model).__name__} of transformers was; "
        f"{option('trust_remote_code')} runs it",
    )


def _merged(source: Source) -> tuple[str, ...]:
    """A note where a model has an adapter beside it, which may already be part of its weights."""
    if source.adapter is None or source.adapter != source.model_folder:
        return ()
    return (f"the adapter beside the model was merged into it; where its weights have it already, remove {ADAPTER}",)


def of_texts(checkpoint: Checkpoint, *names: str) -> Checkpoint:
    """A checkpoint that says what of it no text reaches, such as an encoder of images.

    Args:
        checkpoint: loaded.
        names: of the model's arguments that take token ids.
    """
    token = torch.ones(1, 2, dtype=torch.int64)
    try:
        with quiet():
            output = checkpoint.model(**dict.fromkeys(names, token), use_cache=False)[0]
    except Exception as error:  # a model that a text is not enough for is refused when it is traced
        note = f"what no text reaches is in the bundle, unnamed: a run on two tokens failed ({first_line(error)})"
        return replace(checkpoint, notes=(*checkpoint.notes, note))
    unreached = unreached_weights(checkpoint.model, output)
    parts = {**checkpoint.parts_left_out, **unreached_parts(checkpoint.model, unreached)}
    return replace(checkpoint, left_out=(*checkpoint.left_out, *unreached), parts_left_out=parts)


def _check_missing(source: Source, absent: Iterable[str], unused: tuple[str, ...]) -> None:
    missing = [key for key in absent if not set(key.split(".")) & set(unused)]
    if missing:
        raise ExportError(f"{source.name} lacks {len(missing)} weights its config asks for, such as {missing[0]}")


def _check_finite(source: Source, model: PreTrainedModel, absent: Iterable[str]) -> None:
    """Refuse weights that are no numbers, also those of tokens and positions that no sample of ours has."""
    name = next((name for name in weights_not_finite(model) if name not in absent), None)
    if name is not None:
        raise ExportError(
            f"{source.name} has numbers in its weight {name} that are NaN or infinite; fetch the model again"
        )


def _read(
    source: Source, config: PretrainedConfig, auto_class: Any, as_stored: bool
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model from tensors that `weights` reads; transformers opens no file of weights itself."""
    if source.weights is None:
        raise ExportError("they were not fetched")
    with open_weights(source.weights) as tensors, misfits_named():
        model_class = _class_of(source, config, auto_class)
        integers = integers_among(tensors)
        empty = without_weights(model_class, config) if source.packings or integers else None
        _refuse_integers(empty, integers)
        if _is_mxfp4(config):
            tensors = as_bytes(tensors)
        if source.packings:
            tensors = _as_layers_keep_them(empty, tensors)
        if as_stored:
            # Indexing maps a tensor, and reads nothing.
            tensors = {name: stored_weight(tensor[...]) for name, tensor in tensors.items()}
        model, report = model_class.from_pretrained(
            None, config=config, state_dict=tensors, dtype=torch.float32, output_loading_info=True
        )
    if model.can_generate():
        model.generation_config = read_generation_config(source)
    return model, report


def _is_mxfp4(config: PretrainedConfig) -> bool:
    settings = getattr(config, "quantization_config", None)
    return isinstance(settings, dict) and method_of(settings) == "mxfp4"


def _refuse_integers(model: PreTrainedModel | None, names: Iterable[str]) -> None:
    """Refuse whole numbers for a parameter, which has floats: they stand for others, and nothing says for which."""
    parameters = {name for name, value in model.named_parameters() if value.is_floating_point()} if model else set()
    for name in names:
        if model and renamed(model, name) in parameters:
            raise ExportError(
                f"{name} is stored in whole numbers, and nothing says what they stand for; give the checkpoint that "
                "it was made from"
            )


def _as_layers_keep_them(model: PreTrainedModel | None, tensors: dict[str, Any]) -> dict[str, Any]:
    """The tensors with the packed matrices of GPT-2's layers turned: packed they are those of a linear layer."""
    turned = {f"{name}.weight" for name, layer in model.named_modules() if isinstance(layer, Conv1D)} if model else ()
    if not model or not turned:
        return tensors
    return {
        name: tensor.turned() if isinstance(tensor, UnpackedWeight) and renamed(model, name) in turned else tensor
        for name, tensor in tensors.items()
    }


def _class_of(source: Source, config: PretrainedConfig, auto_class: Any) -> Any:
    """The class that one of transformers' auto classes takes for a config."""
    own = (getattr(config, "auto_map", None) or {}).get(auto_class.__name__)
    if own and source.trust_remote_code:
        return get_class_from_dynamic_module(own, source.model_folder, local_files_only=True)
    model_class = class_of(auto_class, config)
    if model_class is None:
        raise ExportError(f"transformers has no {auto_class.__name__} for {config.model_type}")
    return model_class


def read_generation_config(source: Source) -> GenerationConfig:
    """As `from_pretrained` reads it: generation_config.json, or else the generation settings of config.json.

    Raises:
        ExportError: generation_config.json is not a JSON object.
    """
    folder = source.model_folder
    path = folder / "generation_config.json"
    if path.is_file():
        read_object(path)
    # What is out of range is left out by our own checks, and a note says so.
    with quiet():
        if path.is_file():
            return GenerationConfig.from_pretrained(folder, local_files_only=True)
        return GenerationConfig.from_pretrained(
            folder, config_file_name="config.json", _from_model_config=True, local_files_only=True
        )
