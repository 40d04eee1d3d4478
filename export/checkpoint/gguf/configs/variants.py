"""Finds the architecture of a file, whose name may be that of several that differ in their parts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from triform.export.checkpoint.gguf.architectures.architecture import Architecture
from triform.export.checkpoint.gguf.architectures.dense import FALCON_OF_TWO_NORMS
from triform.export.checkpoint.gguf.architectures.encoder_decoders import T5_WITHOUT_GATES
from triform.export.checkpoint.gguf.architectures.latent import DEEPSEEK_V3
from triform.export.checkpoint.gguf.architectures.mixtures import MIXTRAL
from triform.export.checkpoint.gguf.architectures.table import ARCHITECTURES
from triform.export.checkpoint.gguf.container import GgufFile
from triform.runtime.errors import ExportError, UnsupportedError

_SHARED = "expert_shared_feed_forward_length"
# How much the scale of scores grows with the position.
TEMPERATURE = "attention.temperature_scale"
WINDOW = "attention.sliding_window"
# The architecture of the part that reads images or sounds, in files of any age.
_PROJECTOR = "clip"
# Which function turns scores into weights of experts, as llama.cpp numbers them.
_SIGMOID = 2


def architecture_of(file: GgufFile) -> Architecture:
    """The entry of `ARCHITECTURES` for a file.

    Raises:
        ExportError: the file is not a model but a companion of one, such as a projector or an adapter.
        UnsupportedError: the architecture is not in the table.
    """
    name, kind = file.architecture, file.values.get("general.type", "model")
    if name == _PROJECTOR:
        kind = "mmproj"
    if kind != "model":
        raise ExportError(f"{file.path.name} is only a part of a model ({kind}); give the model's own file")
    if name not in ARCHITECTURES:
        raise UnsupportedError(
            f"{file.path.name} is of the architecture {name}, which is not supported; "
            f"those that are: {', '.join(ARCHITECTURES)}"
        )
    return _with_window(file, _by_parts(file, ARCHITECTURES[name]))


def _by_parts(file: GgufFile, architecture: Architecture) -> Architecture:
    """The architecture of a file whose name is that of several, which differ in their parts."""
    name = file.architecture
    if name == "llama" and _number(file, "expert_count"):
        # Mixtral's files have the architecture llama.
        return MIXTRAL
    if name == "falcon" and "blk.0.attn_norm_2.weight" in file.tensors:
        return FALCON_OF_TWO_NORMS
    if name == "deepseek2" and _number(file, "expert_gating_func") == _SIGMOID:
        return DEEPSEEK_V3
    if name == "falcon-h1" and "output.weight" not in file.tensors:
        # The embedding has been multiplied by one number, and the head would have been by another.
        raise ExportError(f"{file.path.name} has no output.weight, which is not supported for {name}")
    if name == "t5":
        return _t5(file, architecture)
    if name == "granitemoe" and _number(file, _SHARED):
        options = {**architecture.options, "shared_intermediate_size": _SHARED}
        return dataclasses.replace(architecture, model_type="granitemoeshared", options=options)
    if name == "mistral3" and _number(file, TEMPERATURE):
        return dataclasses.replace(architecture, model_type="ministral3", biases={})
    return architecture


def _t5(file: GgufFile, architecture: Architecture) -> Architecture:
    """UMT5 if each layer has distances of its own; and T5 of the first version has no gates."""
    kind = "umt5" if "enc.blk.1.attn_rel_b.weight" in file.tensors else "t5"
    gated = "enc.blk.0.ffn_gate.weight" in file.tensors
    tensors = {**architecture.tensors, **({} if gated else T5_WITHOUT_GATES)}
    return dataclasses.replace(architecture, model_type=kind, tensors=tensors)


def _with_window(file: GgufFile, architecture: Architecture) -> Architecture:
    """The architecture of a file whose name is also that of one without sliding windows."""
    name = file.architecture
    if architecture is MIXTRAL or not _number(file, WINDOW):
        return architecture
    if name == "llama":
        # Mistral's files have the architecture llama, and llama.cpp ignores their sliding windows.
        options = {**architecture.options, "sliding_window": WINDOW}
        return dataclasses.replace(architecture, model_type="mistral", options=options, biases={})
    if name == "olmo2":
        return dataclasses.replace(architecture, model_type="olmo3", pattern=4, local_theta=0.0)
    return architecture


def _number(file: GgufFile, key: str) -> Any:
    """The value of a key of the architecture; None for one that has a value for each layer."""
    value = file.values.get(f"{file.architecture}.{key}")
    return None if isinstance(value, np.ndarray) else value
