"""Imports an encoder-decoder: describes it, makes a bundle's graphs of its own, compares, writes a bundle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PretrainedConfig

from triform.export.checkpoint.loading import read_config, read_generation_config
from triform.export.checkpoint.processors import load_original_tokenizer
from triform.export.checkpoint.quiet import quiet
from triform.export.checkpoint.resolve import find_checkpoint
from triform.export.checkpoint.source import Checkpoint, Source
from triform.export.describe.manifest import write_manifest
from triform.export.describe.special_tokens import decoder_start, tokens_of
from triform.export.forms import encoder_decoder as form
from triform.export.onnx_import.comparison import longest_row
from triform.export.onnx_import.encoder_decoders.check import (
    FEWEST,
    OriginalPair,
    compare_pairs,
    compare_with_checkpoint,
    longest_answer,
)
from triform.export.onnx_import.encoder_decoders.graph import Pair, make_pair
from triform.export.onnx_import.encoder_decoders.parts import Parts
from triform.export.onnx_import.found import Found, ImportOptions, is_exact, quantization_of
from triform.export.options import ExportOptions
from triform.export.report import Clock
from triform.export.runners import EncoderRunner, usable_cores
from triform.export.samples.sources import Sources
from triform.export.verify.encoder_decoder import answer_ids
from triform.export.write import Stored, describe_graph, staged, write_graph
from triform.models.encoder_decoder.kinds import Kind, encoder_decoder_kind
from triform.models.errors import UnsupportedModelError
from triform.runtime.bundle.export_record import Parity
from triform.runtime.bundle.manifest import CacheInfo, GraphInfo
from triform.runtime.errors import ExportError, InputError, UnsupportedError, option

# What an encoder hears at once, whose frames its graph fixes.
_HEARD = "log_mel"


@dataclass(frozen=True)
class _Model:
    """What the files of a folder say of a model.

    Attributes:
        checkpoint: its config, its generation config and its tokenizer; it has no weights.
        kind: what it reads.
        sources: samples of that.
        limit: most tokens of an answer.
        start: the token that an answer begins with.
        pad: the token that pads.
    """

    checkpoint: Checkpoint
    kind: Kind
    sources: Sources
    limit: int
    start: int
    pad: int

    @property
    def vocab_size(self) -> int:
        return int(self.checkpoint.model.config.get_text_config(decoder=True).vocab_size)


def import_encoder_decoder(parts: Parts, bundle: Path, options: ImportOptions, clock: Clock) -> str:
    """Turn the graphs of an encoder-decoder into a bundle; return its task.

    Args:
        parts: the graphs' files.
        bundle: the folder to make.
        options: see there.
        clock: times the steps, and keeps the notes.

    Raises:
        ExportError: the folder or the target cannot be used, or the graphs do not do what the config says.
        UnsupportedError: the graphs or what the model reads are of another form.
        InputError: an option does not fit the folder.
    """
    if options.task is not None:
        raise InputError(f"{option('task')} is for encoders, and {parts.folder} is an encoder-decoder")
    with clock.step("load"):
        model = _model(parts.folder, options)
        pair = make_pair(parts, model.vocab_size)
        _check_source(model, pair, parts)
        checkpoint = _checkpoint(model, options)
    with staged(bundle, options.force) as staging:
        exact = is_exact(pair.encoder.graph) and is_exact(pair.decoder.graph)
        with clock.step("write"):
            stored: Stored = {}
            write_graph(pair.encoder, staging / "encoder.onnx", stored)
            write_graph(pair.decoder, staging / "decoder.onnx", stored)
        with clock.step("compare"):
            model = _with_limits(model, pair.cache, staging, clock)
            cache, said = _compare(model, pair, parts, staging, clock, exact=exact)
            parity = None if checkpoint is None else _against(model, checkpoint, cache, staging, exact=exact)
            said += "; not PyTorch" if parity is None else "; PyTorch, on the same"
        with clock.step("write"):
            graphs = _described(pair, parts, staging, said)
            info = form.encoder_decoder_info(model.checkpoint, model.kind, model.sources, staging, model.start)
            manifest = form.encoder_decoder_manifest(model.checkpoint, model.kind, graphs, cache, model.limit, info)
            write_manifest(manifest, staging, parity, clock)
    return model.kind.task


def _model(folder: Path, options: ImportOptions) -> _Model:
    described = folder
    if not (folder / "config.json").is_file():
        if options.against is None:
            raise ExportError(
                f"{folder} has no config.json: name the checkpoint that it was made of with {option('against')}, or "
                "copy its config and its tokenizer's files there"
            )
        described = find_checkpoint(options.against).model_folder
    source = Source(folder.resolve().name, described, described, described)
    config = read_config(source)
    kind = _kind(source, config)
    checkpoint = Checkpoint(source, _without_weights(source, config, kind), load_original_tokenizer(source), 0)
    start = decoder_start(checkpoint)
    if start is None:
        raise ExportError(f"{folder} does not say which token its decoder starts with")
    limit = form.answer_limit(config, ExportOptions(context_length=options.context_length))
    if limit <= FEWEST:
        raise ExportError(f"answers of {limit} tokens at most are too short to compare: {FEWEST + 1} are needed")
    with quiet():
        # It warns that a whole text is longer than the model reads.
        sources = form.sources_of(kind, checkpoint)
    if kind.source == "audio" and (sources.audio is None or sources.audio.kind != _HEARD):
        heard = "" if sources.audio is None else f" ({sources.audio.kind})"
        raise UnsupportedError(
            f"{folder} reads other features of audio than Whisper{heard}, which cannot be imported; export the "
            "checkpoint instead"
        )
    return _Model(checkpoint, kind, sources, limit, start, tokens_of(checkpoint).pad or 0)


def _kind(source: Source, config: PretrainedConfig) -> Kind:
    try:
        kind = encoder_decoder_kind(config)
    except UnsupportedModelError as error:
        raise UnsupportedError(f"{source.path} cannot be imported: {error}") from error
    if kind.source == "image":
        raise UnsupportedError(f"{source.path} reads images, which cannot be imported; export the checkpoint instead")
    return kind


def _without_weights(source: Source, config: PretrainedConfig, kind: Kind) -> object:
    """The model that a config describes: it takes no memory, and computes nothing."""
    make = getattr(kind.auto_class, "from_config", None) or kind.auto_class._from_config
    with quiet(), torch.device("meta"):
        model = make(config)
    model.generation_config = read_generation_config(source)
    return model


def _check_source(model: _Model, pair: Pair, parts: Parts) -> None:
    """Refuse an encoder that reads something else than the config says."""
    taken = [str(value.name) for value in pair.encoder.graph.inputs]
    given = list(model.sources.samples.parity[0])
    if sorted(taken) != sorted(given):
        raise UnsupportedError(
            f"{parts.encoder} takes {', '.join(taken)}, and its config's model reads {', '.join(given)}"
        )
    sizes = list(pair.encoder.graph.inputs[0].shape or [])
    features = model.sources.samples.parity[0][taken[0]]
    fixed = [size for size in zip(sizes[1:], features.shape, strict=False) if isinstance(size[0], int)]
    if model.kind.source == "audio" and any(size != own for size, own in fixed):
        raise UnsupportedError(
            f"{parts.encoder} takes features of the size {sizes[1:]}, and preprocessor_config.json makes those of "
            f"{list(features.shape)}"
        )


def _with_limits(model: _Model, cache: CacheInfo, folder: Path, clock: Clock) -> _Model:
    """Find out how long a source and an answer can be."""
    samples = model.sources.samples.parity
    limit = longest_answer(folder, cache, samples[0], model.pad, model.limit)
    if limit < model.limit:
        clock.notes.append(f"the graph writes {limit} tokens at most, not {model.limit} as its config says")
    longest = form.source_limit(model.checkpoint) if model.kind.source == "text" else None
    if longest is not None:
        longest_row(EncoderRunner(folder / "encoder.onnx", usable_cores()), list(samples[0]), longest, 0, model.start)
    return dataclasses.replace(model, limit=limit)


def _compare(
    model: _Model, pair: Pair, parts: Parts, folder: Path, clock: Clock, *, exact: bool
) -> tuple[CacheInfo, str]:
    ids = answer_ids(model.vocab_size, model.start, model.limit)
    samples = model.sources.samples.parity
    # Graphs of other tools place a token by the number of those before it in the whole run.
    cache = dataclasses.replace(pair.cache, uneven=False)
    cache, worst = compare_pairs(OriginalPair(parts), folder, cache, samples, ids, model.pad, exact=exact)
    if worst:
        clock.notes.append(
            f"logits change by up to {worst:.1%} with how an answer is split into runs: these graphs round their "
            "activations"
        )
    if cache.single:
        clock.notes.append("what an answer begins with is read token by token: this graph continues by one at a time")
    return cache, f"the graphs as they came, on {len(ids)} tokens at once, in single steps and in a batch of two"


def _checkpoint(model: _Model, options: ImportOptions) -> Checkpoint | None:
    """The model to compare with, if one is named."""
    if options.against is None:
        return None
    origin = find_checkpoint(options.against)
    config = read_config(origin)
    own, text = model.checkpoint.model.config, config.get_text_config(decoder=True)
    size = getattr(text, "vocab_size", None)
    if config.model_type != own.model_type or size != model.vocab_size:
        raise ExportError(
            f"{origin.name} is another model: {config.model_type} with {size} tokens, and not {own.model_type} with "
            f"{model.vocab_size}"
        )
    return form.load(origin, config, ExportOptions())


def _against(model: _Model, checkpoint: Checkpoint, cache: CacheInfo, folder: Path, *, exact: bool) -> Parity:
    with quiet():
        sources = form.sources_of(model.kind, checkpoint)
    if sources.audio != model.sources.audio:
        other = checkpoint.source.name
        raise ExportError(f"{other} makes other inputs of audio than {model.checkpoint.source.path} does")
    return compare_with_checkpoint(checkpoint, sources, folder, cache, model.start, model.limit, model.pad, exact=exact)


def _described(pair: Pair, parts: Parts, folder: Path, said: str) -> dict[str, GraphInfo]:
    encoder, decoder = Found(parts.folder, parts.encoder, pair.encoder), Found(parts.folder, parts.past, pair.decoder)
    return {
        name: describe_graph(
            found.graph, folder / f"{name}.onnx", quantization_of(found.graph.graph), {**found.notes, "parity": said}
        )
        for name, found in (("encoder", encoder), ("decoder", decoder))
    }
