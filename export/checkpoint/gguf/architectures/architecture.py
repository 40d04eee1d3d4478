"""How a GGUF architecture maps to one of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal


@dataclass(frozen=True)
class Architecture:
    """How a GGUF architecture maps to one of transformers.

    Attributes:
        model_type: transformers' name.
        sizes: keys that every file has, by the config's attribute.
        tensors: from tensors to parameters; the second of two with the same parameter comes behind the first.
        options: keys that a file may have, by the config's attribute.
        biases: from a tensor of layer 0 that only files with biases have to the config's setting for biases.
        permuted: whether the rows of queries and keys are in the order of llama.cpp's rotary embedding.
        rotary: whether positions are encoded by a rotary embedding.
        frequency_factors: whether `rope_freqs.weight` is used.
        rotated_share: whether `rope_freqs.weight` says which frequencies are used.
        norm_offset: what llama.cpp's converter adds to the weights of norms.
        pattern: period of the sliding windows, in layers: every layer has one but the last of each period; 0 if all
            layers are the same.
        local_theta: the rotary base of layers with a sliding window; 0 if it is that of the other layers.
        form: of the model: decoder, encoder or encoder-decoder.
        constants: values of the config that every model of the architecture has and no file names.
        expected: keys that a file may have, with their only supported value.
        rope: parameters of yarn that every model of the architecture has and no file names.
        grouped: whether the matrix of queries, keys and values has those of each group of heads together, while the
            file's has all queries, then all keys, then all values.
        whole_rotation: whether the share of a head that is rotated is given even if it is the whole head.
        attention: whether any layer has attention.
        bare: from tensors whose names have no ".weight" or ".bias" to parameters, whose names are whole.
        without_attention: the type of layers that have no keys and values, in the config's words.
        row_orders: from tensors to what their rows are, if their order is not transformers'; the module of that name
            has the orders.
        column_orders: the same for columns.
        layer_values: from keys that do not begin with the architecture's name and have a number for each layer, to
            parameters.
        unread: whether a file may have parameters that the model's class says it does not need, to be left out.
        next_tokens: whether a file may have layers behind the model's own that guess a second token, to be left out.
        dense: tensors that a file may have of linear layers after the pooling, in their order.
    """

    model_type: str
    sizes: Mapping[str, str]
    tensors: Mapping[str, str]
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    biases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    permuted: bool = False
    rotary: bool = True
    frequency_factors: bool = False
    rotated_share: bool = False
    norm_offset: float = 0.0
    pattern: int = 0
    local_theta: float | None = None
    form: Literal["decoder", "encoder", "encoder-decoder"] = "decoder"
    constants: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    expected: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    rope: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    grouped: bool = False
    whole_rotation: bool = False
    attention: bool = True
    bare: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    without_attention: str | None = None
    row_orders: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    column_orders: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    layer_values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    unread: bool = False
    next_tokens: bool = False
    dense: tuple[str, ...] = ()
