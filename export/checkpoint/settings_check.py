"""Types of what is read of a checkpoint's configs, besides what transformers checks itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triform.export.checkpoint.files.json_files import content_of
from triform.export.checkpoint.files.weights import tensor_names
from triform.export.checkpoint.number_check import check_numbers
from triform.export.checkpoint.sizes import check_counts, check_sizes
from triform.export.checkpoint.source import Source
from triform.runtime.bundle.generation_defaults import GenerationNumbers
from triform.runtime.checked_json import Mismatch, build
from triform.runtime.errors import ExportError


@dataclass(frozen=True)
class _AnyObject:
    """Any object."""


@dataclass(frozen=True)
class _Config:
    """config.json."""

    architectures: list[str] | None = None
    model_type: str | None = None
    auto_map: dict[str, str | list[str]] | None = None
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    decoder_start_token_id: int | list[int] | None = None
    max_position_embeddings: int | None = None
    tie_word_embeddings: bool | None = None
    is_encoder_decoder: bool | None = None
    chunk_size_feed_forward: int | None = None
    output_hidden_states: bool | None = None
    return_dict: bool | None = None
    id2label: dict[str, str | int | float] | None = None
    quantization_config: _AnyObject | None = None
    task_specific_params: _AnyObject | None = None
    sentence_transformers: _AnyObject | None = None


@dataclass(frozen=True)
class _GenerationConfig(GenerationNumbers):
    """generation_config.json."""

    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    decoder_start_token_id: int | list[int] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | list[int] | None = None
    suppress_tokens: list[int] | None = None
    begin_suppress_tokens: list[int] | None = None
    bad_words_ids: list[list[int]] | None = None
    stop_strings: str | list[str] | None = None
    no_timestamps_token_id: int | None = None
    prev_sot_token_id: int | None = None
    max_initial_timestamp_index: int | None = None
    lang_to_id: dict[str, int] | None = None
    task_to_id: dict[str, int] | None = None
    alignment_heads: list[list[int]] | None = None


@dataclass(frozen=True)
class _TokenizerConfig:
    """tokenizer_config.json."""

    model_max_length: int | float | None = None
    tokenizer_class: str | None = None
    padding_side: str | None = None
    truncation_side: str | None = None
    clean_up_tokenization_spaces: bool | None = None
    add_bos_token: bool | None = None
    add_eos_token: bool | None = None
    add_prefix_space: bool | None = None
    do_lower_case: bool | None = None


def check_settings(source: Source) -> None:
    """Check the types in a folder's configs, and the sizes in config.json against the weights.

    Raises:
        ExportError: a value is of the wrong type, or no weights of this size can have it.
    """
    folder = source.model_folder
    config = _typed(folder / "config.json", _Config)
    _typed(folder / "generation_config.json", _GenerationConfig)
    _typed(source.tokenizer_folder / "tokenizer_config.json", _TokenizerConfig)
    if source.weights is None:
        check_counts(str(folder / "config.json"), config)
    elif config:
        names = tensor_names(source.weights)
        check_sizes(str(folder / "config.json"), config, tensors=len(names), size=source.weights.size)


def _typed(path: Path, kind: Any) -> dict[str, Any]:
    content = content_of(path)
    if not isinstance(content, dict):
        # Whoever reads it says so.
        return {}
    check_numbers(str(path), content)
    try:
        build(kind, content)
    except Mismatch as mismatch:
        raise ExportError(f"{path}: {mismatch}; correct it, or fetch the model again") from None
    return content
