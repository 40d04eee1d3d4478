"""Converts a file's rotary embedding to transformers' rope parameters.

Linear, yarn and longrope become rope parameters of the config. Factors for each frequency (`rope_freqs.weight` in Llama
3.1 files) are applied to the model's inverse frequencies, because no rope type takes such factors.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from triform.export.checkpoint.gguf.container import GgufFile
from triform.export.checkpoint.gguf.numbers import values_of
from triform.export.checkpoint.gguf.settings import Settings
from triform.runtime.errors import ExportError

FREQUENCIES = "rope_freqs.weight"
LONG, SHORT = "rope_factors_long.weight", "rope_factors_short.weight"
# llama.cpp's base for files that do not name one.
_THETA = 10000.0
_YARN = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}


def rope_parameters(
    file: GgufFile, settings: Settings, head_dim: int, *, given: bool = False, original: int | None = None
) -> dict[str, Any]:
    """The `rope_parameters` of a config.

    Args:
        file: the file.
        settings: its keys.
        head_dim: the size of a head.
        given: whether the share of a head that is rotated is there even if it is the whole head.
        original: the length that a scaling begins at, for a file that does not say.

    Raises:
        ExportError: the scaling is not supported or incomplete.
    """
    parameters: dict[str, Any] = {
        "rope_type": "default",
        "rope_theta": float(settings.same("rope.freq_base", _THETA)),
    }
    dimensions = int(settings.same("rope.dimension_count", head_dim))
    if dimensions != head_dim or given:
        parameters["partial_rotary_factor"] = dimensions / head_dim
    return parameters | _scaling(file, settings, original)


def _scaling(file: GgufFile, settings: Settings, original: int | None) -> dict[str, Any]:
    factor = float(settings.get("rope.scaling.factor") or settings.get("rope.scale_linear") or 1.0)
    original = settings.get("rope.scaling.original_context_length") or original
    attention = float(settings.get("rope.scaling.attn_factor") or 1.0)
    settings.get("rope.scaling.finetuned")
    kind = settings.get("rope.scaling.type") or ("linear" if factor != 1 else "none")
    if LONG in file.tensors or SHORT in file.tensors:
        kind = "longrope"
    if kind == "yarn":
        return _yarn(settings, factor, original, attention)
    if kind == "longrope":
        return _longrope(file, original, attention, factor)
    if kind not in ("none", "linear"):
        raise ExportError(f"{file.path.name} scales its positions by {kind!r}, which is not supported")
    if attention != 1:
        raise ExportError(f"{file.path.name} has rope.scaling.attn_factor = {attention}, which is not supported")
    # llama.cpp ignores a factor of type none.
    return {} if kind == "none" or factor == 1 else {"rope_type": "linear", "factor": factor}


def _yarn(settings: Settings, factor: float, original: int | None, attention: float) -> dict[str, Any]:
    settings.expect("rope.scaling.yarn_ext_factor", 1.0)
    scale = float(settings.get("rope.scaling.yarn_log_multiplier") or 0.0)
    latent = settings.architecture == "deepseek2"
    if latent:
        # Its files have a tenth of the scale.
        scale *= 10
    own = settings.get("rope.scaling.yarn_attn_factor")
    parameters: dict[str, Any] = {"rope_type": "yarn", "factor": factor}
    parameters["original_max_position_embeddings"] = int(original or settings.need("context_length"))
    for key, name in _YARN.items():
        value = settings.get(f"rope.scaling.{key}")
        if value is not None:
            parameters[name] = float(value)
    if scale and own is None:
        # The scale of all dimensions; llama.cpp's other one is 1, and the same for DeepSeek's.
        parameters |= {"mscale": scale if latent else 1.0, "mscale_all_dim": scale}
        if attention != 1:
            raise ExportError(f"{settings.architecture}.rope.scaling has both attn_factor and yarn_log_multiplier")
    elif own is not None or attention != 1:
        # The factor by which yarn multiplies cosines and sines, if the file has none of its own.
        parameters["attention_factor"] = attention * (float(own) if own is not None else 0.1 * math.log(factor) + 1)
    return parameters


def _longrope(file: GgufFile, original: int | None, attention: float, factor: float) -> dict[str, Any]:
    if LONG not in file.tensors or SHORT not in file.tensors or not original:
        raise ExportError(
            f"{file.path.name} scales its positions by longrope but lacks {LONG}, {SHORT} or "
            "rope.scaling.original_context_length"
        )
    return {
        "rope_type": "longrope",
        "long_factor": values_of(file.tensors[LONG]).tolist(),
        "short_factor": values_of(file.tensors[SHORT]).tolist(),
        "original_max_position_embeddings": int(original),
        "attention_factor": attention,
        "factor": factor,
    }


def apply_frequency_factors(file: GgufFile, model: torch.nn.Module) -> None:
    """Divide a model's inverse frequencies by the file's factors, if it has any for all of its layers.

    Raises:
        ExportError: there are more or fewer factors than frequencies.
    """
    tensor = file.tensors.get(FREQUENCIES)
    if tensor is None:
        return
    factors = torch.from_numpy(values_of(tensor))
    for buffer in _frequencies(model):
        if buffer.shape != factors.shape:
            raise ExportError(
                f"{file.path.name}: {FREQUENCIES} has {len(factors)} factors for {len(buffer)} frequencies"
            )
        buffer.div_(factors)


def check_rotated_part(file: GgufFile, model: torch.nn.Module) -> None:
    """Check that a model rotates as many dimensions of a head as the file says.

    Raises:
        ExportError: it rotates more or fewer, since its class of transformers does not read the share.
    """
    wanted = file.values.get(f"{file.architecture}.rope.dimension_count")
    local = file.values.get(f"{file.architecture}.rope.dimension_count_swa")
    found = {2 * len(buffer) for buffer in _frequencies(model)}
    if wanted is not None and found - {int(wanted), int(local or wanted)}:
        raise ExportError(
            f"{file.path.name} has {file.architecture}.rope.dimension_count = {wanted}, which is not supported: "
            f"its model rotates {', '.join(map(str, sorted(found)))} dimensions"
        )


def _frequencies(model: torch.nn.Module) -> list[torch.Tensor]:
    """The inverse frequencies of a model, each once, though a module may hold the same under two names."""
    buffers = {buffer.data_ptr(): buffer for name, buffer in model.named_buffers() if name.endswith("inv_freq")}
    return list(buffers.values())
