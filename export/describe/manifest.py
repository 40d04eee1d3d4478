"""Builds and writes a bundle's manifest: the part that is the same for every form."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from dataclasses import dataclass, field
from pathlib import Path

from triform.export.checkpoint.files.card import origin_of
from triform.export.checkpoint.source import Checkpoint
from triform.export.describe.in_range import in_range, unread_tokens
from triform.export.report import Clock
from triform.export.tested_versions import installed_versions, newer_than_tested
from triform.export.trial import try_bundle
from triform.export.write import describe_files
from triform.runtime.bundle.export_record import EncoderParity, ExportInfo, Origin, Parity
from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.manifest import (
    GPU_SCHEMA_VERSION,
    GROWTH_SCHEMA_VERSION,
    MANIFEST,
    OLDEST_SCHEMA_VERSION,
    PACKED_SCHEMA_VERSION,
    PROMPTS,
    PROMPTS_SCHEMA_VERSION,
    SCHEMA_VERSION,
    STATES_SCHEMA_VERSION,
    GraphInfo,
    Manifest,
    Tokens,
)
from triform.runtime.bundle.targets import has_gpu
from triform.runtime.bundle.text_info import TokenizerInfo


@dataclass(frozen=True)
class ModelInfo:
    """The model's part of the manifest.

    Attributes:
        form: encoder, decoder or encoder-decoder.
        task: transformers' name of the task.
        model_type: as in the config.
        name: of the checkpoint.
        parameters: number of learned parameters.
        origin: of the checkpoint; None if unknown.
    """

    form: str
    task: str
    model_type: str
    name: str
    parameters: int
    origin: Origin | None = None


@dataclass(frozen=True)
class VocabularyInfo:
    """The tokens a model reads or writes; the defaults are those of a model without texts.

    Attributes:
        tokenizer: its files.
        tokens: ids of special tokens.
        size: number of token ids the model knows.
        max_length: most tokens of a text.
    """

    tokenizer: TokenizerInfo | None = None
    tokens: Tokens = field(default_factory=lambda: Tokens(None, [], None))
    size: int = 0
    max_length: int = 0


def model_info(checkpoint: Checkpoint, form: str, task: str) -> ModelInfo:
    """Describe a checkpoint of transformers."""
    model, source = checkpoint.model, checkpoint.source
    return ModelInfo(
        form, task, model.config.model_type, source.name, model.num_parameters(), origin=origin_of(source.model_folder)
    )


def form_manifest(model: ModelInfo, vocabulary: VocabularyInfo, graphs: dict[str, GraphInfo]) -> Manifest:
    """Build the manifest of a bundle, without the fields of its form.

    Args:
        model: see `ModelInfo`.
        vocabulary: see `VocabularyInfo`.
        graphs: by name.

    Returns:
        a manifest to complete with `dataclasses.replace`: `cache` and `generation` for a model that generates,
        `encoder` or `encoder_decoder` for those forms. `write_manifest` adds `files` and `export`.
    """
    return Manifest(
        schema_version=OLDEST_SCHEMA_VERSION,
        triform_version=importlib.metadata.version("triform"),
        form=model.form,
        task=model.task,
        model_type=model.model_type,
        model_name=model.name,
        graphs=graphs,
        cache=None,
        max_length=vocabulary.max_length,
        vocab_size=vocabulary.size,
        parameters=model.parameters,
        tokens=vocabulary.tokens,
        generation=GenerationDefaults(),
        tokenizer=vocabulary.tokenizer,
        files={},
        export=ExportInfo({}, {}, origin=model.origin),
        encoder=None,
        encoder_decoder=None,
    )


def write_manifest(manifest: Manifest, folder: Path, parity: Parity | EncoderParity | None, clock: Clock) -> None:
    """Write manifest.json with the hash of every other file in `folder` and the record of this export; try the bundle.

    Defaults and special tokens that are out of range are left out, with a note in `clock`; one names tokens of the
    tokenizer that the model does not read.

    Args:
        manifest: from `form_manifest`, completed.
        folder: holds every other file of the bundle.
        parity: the differences between the graphs and PyTorch; None if they were not compared.
        clock: has the seconds of the finished steps, and keeps the notes.

    Raises:
        ExportError: the bundle would be refused by its reader.
    """
    manifest, notes = in_range(manifest)
    clock.notes += [*manifest.export.notes, *notes, *unread_tokens(manifest, folder)]
    export = dataclasses.replace(
        manifest.export,
        notes=list(clock.notes),
        versions=installed_versions(),
        seconds=dict(clock.seconds),
        newer_than_tested=newer_than_tested(),
    )
    if isinstance(parity, EncoderParity):
        export = dataclasses.replace(export, encoder_parity=parity)
    elif parity is not None:
        export = dataclasses.replace(export, parity=parity)
    complete = dataclasses.replace(
        manifest, schema_version=_schema_version(manifest), files=describe_files(folder), export=export
    )
    (folder / MANIFEST).write_text(complete.to_json(), encoding="utf-8")
    try_bundle(folder)


def _schema_version(manifest: Manifest) -> int:
    """The oldest version that has what a manifest needs."""
    cache = manifest.cache
    if _has_sides(manifest):
        return SCHEMA_VERSION
    if any(graph.packed is not None for graph in manifest.graphs.values()):
        return PACKED_SCHEMA_VERSION
    if PROMPTS in manifest.graphs:
        return PROMPTS_SCHEMA_VERSION
    if cache is not None and cache.growth != "in_place":
        return GROWTH_SCHEMA_VERSION
    if has_gpu(manifest):
        return GPU_SCHEMA_VERSION
    return STATES_SCHEMA_VERSION if cache is not None and cache.states else OLDEST_SCHEMA_VERSION


def _has_sides(manifest: Manifest) -> bool:
    """Whether texts are cut on the left, or a context comes before its question."""
    tokenizer, encoder = manifest.tokenizer, manifest.encoder
    cut_left = tokenizer is not None and tokenizer.truncation_side == "left"
    return cut_left or (encoder is not None and encoder.context_first)
