"""What the files beside a decoder's graph say of it: config.json, or the config of onnxruntime-genai."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerFast

from triform.export.checkpoint.files.card import origin_of
from triform.export.checkpoint.files.json_files import read_object
from triform.export.checkpoint.loading import read_config, read_generation_config
from triform.export.checkpoint.processors import load_tokenizer
from triform.export.checkpoint.quiet import quiet
from triform.export.checkpoint.source import Source
from triform.export.onnx_import.decoders.graph import Names
from triform.export.onnx_import.layout import GENAI_CONFIG
from triform.runtime.bundle.export_record import Origin
from triform.runtime.errors import ExportError, option

# Settings of genai_config.json's "search" that are a model's own defaults; the others are those of a program.
_SEARCH = ("do_sample", "temperature", "top_k", "top_p", "repetition_penalty", "no_repeat_ngram_size", "length_penalty")


@dataclass(frozen=True)
class Described:
    """A decoder, but for its graph.

    Attributes:
        source: the folder that the files are read from.
        config: what `context_limit` reads a limit from.
        model_type: as in the config.
        generation: transformers.GenerationConfig, or what has some of its attributes.
        tokenizer: of transformers.
        names: of the graph's tensors.
        head_dim: size of a head, where a file says.
        origin: of the checkpoint; None if unknown.
        genai: content of genai_config.json; None if there is none.
    """

    source: Source
    config: Any
    model_type: str
    generation: Any
    tokenizer: Any
    names: Names
    head_dim: int | None
    origin: Origin | None
    genai: dict[str, Any] | None


def describe_decoder(folder: Path, other: Path | None) -> Described:
    """Read the files of a folder.

    Args:
        folder: holds the graph.
        other: a folder of the checkpoint, whose config and tokenizer are read if `folder` has no config.

    Raises:
        ExportError: there is no config or no tokenizer, or one cannot be read.
    """
    genai = read_object(folder / GENAI_CONFIG) if (folder / GENAI_CONFIG).is_file() else None
    if (folder / "config.json").is_file():
        config_folder = folder
    elif genai is not None:
        return _of_genai(folder, genai)
    elif other is not None:
        config_folder = other
    else:
        raise ExportError(
            f"{folder} has neither config.json nor {GENAI_CONFIG}: name the checkpoint that it was made of with "
            f"{option('against')}, or copy its config and its tokenizer's files there"
        )
    source = Source(folder.resolve().name, config_folder, config_folder, config_folder)
    config, tokenizer = read_config(source), _tokenizer(source)
    names = Names()
    if genai is not None:
        with _named(folder):
            names = _names(genai)
    generation = read_generation_config(source)
    return Described(
        source, config, config.model_type, generation, tokenizer, names, _head_dim(config), origin_of(source.path),
        genai,
    )  # fmt: skip


def _of_genai(folder: Path, content: dict[str, Any]) -> Described:
    source = Source(folder.resolve().name, folder, folder, folder)
    model, search = content.get("model"), content.get("search")
    with _named(folder):
        if not isinstance(model, dict):
            raise TypeError("model")
        head_dim = int(model["decoder"]["head_size"])
        config = SimpleNamespace(max_position_embeddings=int(model["context_length"]))
        config.get_text_config = lambda: config
        generation = {name: search[name] for name in _SEARCH if name in search} if isinstance(search, dict) else {}
        tokens = {name: model.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        names, kind = _names(content), str(model["type"])
    return Described(
        source, config, kind, SimpleNamespace(**generation, **tokens), _tokenizer(source), names, head_dim,
        origin_of(source.path), content,
    )  # fmt: skip


@contextmanager
def _named(folder: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ExportError(f"{folder / GENAI_CONFIG} cannot be read: {error} is missing or of another kind") from error


def _names(content: dict[str, Any]) -> Names:
    """The names of tensors that genai_config.json gives."""
    plain, decoder = Names(), content["model"]["decoder"]
    inputs, outputs = decoder.get("inputs", {}), decoder.get("outputs", {})
    cache = ("past_key_names", "past_value_names")
    return Names(
        inputs={ours: str(theirs) for ours, theirs in inputs.items() if ours not in cache},
        past_key=str(inputs.get(cache[0], plain.past_key)),
        past_value=str(inputs.get(cache[1], plain.past_value)),
        present_key=str(outputs.get("present_key_names", plain.present_key)),
        present_value=str(outputs.get("present_value_names", plain.present_value)),
        logits=str(outputs.get("logits", plain.logits)),
    )


def _head_dim(config: PretrainedConfig) -> int | None:
    text = config.get_text_config()
    own, width, heads = (getattr(text, name, None) for name in ("head_dim", "hidden_size", "num_attention_heads"))
    return own or (width // heads if isinstance(width, int) and isinstance(heads, int) and heads else None)


def _tokenizer(source: Source) -> Any:
    """The tokenizer, where there is tokenizer.json alone without its special tokens.

    Raises:
        ExportError: there is none.
    """
    alone = source.tokenizer_folder / "tokenizer.json"
    others = ("tokenizer_config.json", "config.json")
    if alone.is_file() and not any((source.tokenizer_folder / name).is_file() for name in others):
        with quiet():
            return PreTrainedTokenizerFast(tokenizer_file=str(alone))
    tokenizer = load_tokenizer(source)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ExportError(f"{source.name} has a tokenizer that reads characters, which cannot be imported")
    return tokenizer
