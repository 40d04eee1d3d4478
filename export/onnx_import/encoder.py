"""Imports an encoder: finds the graph, names its inputs and outputs, compares it with the original, writes a bundle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from transformers import PretrainedConfig

from triform.export.checkpoint.files.card import origin_of
from triform.export.checkpoint.loading import read_config
from triform.export.checkpoint.processors import load_tokenizer, save_tokenizer
from triform.export.checkpoint.sentence.sentence_transformers import (
    SentenceModules,
    lower_case,
    read_modules,
    relevance_of,
)
from triform.export.checkpoint.source import Source
from triform.export.describe.encoder import label_names, reads_context_first, vector_width
from triform.export.describe.manifest import ModelInfo, VocabularyInfo, form_manifest, write_manifest
from triform.export.describe.special_tokens import encoder_tokens, special_strings
from triform.export.onnx_import.comparison import batch_effect, check_same, longest_row, samples_of
from triform.export.onnx_import.found import Found, ImportOptions, parameters_of, quantization_of
from triform.export.onnx_import.graph import TOKEN_TYPES, adapt, take_no_types, task_of
from triform.export.onnx_import.pooling import add_pooling
from triform.export.report import Clock
from triform.export.runners import EncoderRunner, usable_cores
from triform.export.tokenization.clean_up import clean_up_decoding
from triform.export.write import describe_graph, staged, write_graph
from triform.runtime.bundle.manifest import EmbeddingInfo, EncoderInfo, GraphInfo, Manifest, ProblemType
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import ExportError, InputError, option

_TASKS = ("feature-extraction", "text-classification", "token-classification", "fill-mask", "question-answering")
_DEFAULT_LENGTH = 512


@dataclass(frozen=True)
class _Model:
    """What is read of a folder."""

    source: Source
    config: PretrainedConfig
    tokenizer: Any
    task: str
    modules: SentenceModules


def import_encoder(found: Found, bundle: Path, options: ImportOptions, clock: Clock) -> str:
    """Turn an ONNX graph of an encoder of texts into a bundle; return its task.

    Args:
        found: the graph.
        bundle: the folder to make.
        options: of the import.
        clock: times the steps, and keeps the notes.

    Raises:
        ExportError: the folder or the target cannot be used, or the graph does not do what its config says.
        UnsupportedError: the graph has an unknown input, lacks an output, or has fixed sizes.
        InputError: an option does not fit the folder.
    """
    graph, path = found.graph, found.path
    if options.against is not None or options.context_length is not None:
        given = "against" if options.against is not None else "context_length"
        raise InputError(f"{option(given)} is for decoders, and {path} is an encoder")
    with clock.step("load"):
        model = _read(found.folder, graph, options.task)
    with staged(bundle, options.force) as staging:
        with clock.step("write"):
            pooled = _adapt(model, graph, path)
            write_graph(graph, staging / "encoder.onnx")
        with clock.step("compare"):
            max_length = _compare(model, path, staging / "encoder.onnx", pooled, clock)
        with clock.step("write"):
            save_tokenizer(model.tokenizer, staging)
            clean_up_decoding(model.tokenizer, staging)
            info = describe_graph(graph, staging / "encoder.onnx", quantization_of(graph.graph), found.notes)
            write_manifest(_manifest(model, info, parameters_of(graph.graph), max_length), staging, None, clock)
    return model.task


def _read(folder: Path, graph: ir.Model, task: str | None) -> _Model:
    if not (folder / "config.json").is_file():
        raise ExportError(f"{folder} has no config.json: copy that of the checkpoint there")
    source = Source(folder.resolve().name, folder, folder, folder)
    config = read_config(source)
    decided = task or task_of(graph.graph, config.architectures or [])
    if decided not in _TASKS:
        said = "cannot be told from its config" if decided is None else f"{decided} cannot be imported"
        raise InputError(f"the task of {folder} {said}; give {option('task')}: {', '.join(_TASKS)}")
    modules = read_modules(folder) if decided in ("feature-extraction", "text-classification") else None
    tokenizer = load_tokenizer(source)
    if not hasattr(tokenizer, "backend_tokenizer"):
        raise ExportError(f"{folder} has a tokenizer that reads characters, which cannot be imported")
    if modules is not None and modules.lower_case:
        lower_case(tokenizer)
    return _Model(source, config, tokenizer, decided, modules or SentenceModules())


def _adapt(model: _Model, graph: ir.Model, path: Path) -> bool:
    """Change the graph in place; return whether pooling was added."""
    adapt(graph, path, model.task)
    if TOKEN_TYPES not in model.tokenizer.model_input_names:
        take_no_types(graph.graph)
    names = [value.name for value in graph.graph.outputs]
    if model.task != "feature-extraction" or "sentence_embedding" in names:
        return False
    width = next(value.shape for value in graph.graph.outputs if value.name == "last_hidden_state")
    size = width[-1] if width is not None and isinstance(width[-1], int) else int(model.config.hidden_size)
    add_pooling(graph.graph, model.modules, size)
    return True


def _compare(model: _Model, original: Path, written: Path, pooled: bool, clock: Clock) -> int:
    """Compare both graphs; return the most tokens that a text may have."""
    threads, pad = usable_cores(), model.tokenizer.pad_token_id or 0
    before, after = EncoderRunner(original, threads), EncoderRunner(written, threads)
    names = [name for name in after.inputs if name != "logits_positions"]
    max_length = longest_row(before, list(before.inputs), _limit(model), pad + 1, _any_token(model.tokenizer))
    samples = samples_of(model.tokenizer, names, max_length)
    check_same(before, after, samples, pad, model.modules if pooled else None)
    effect = batch_effect(after, samples, pad)
    if effect:
        clock.notes.append(
            f"results change by up to {effect:.1%} with the texts that are run together: this graph rounds them alike"
        )
    return max_length


def _limit(model: _Model) -> int:
    limits = [
        model.modules.max_length or model.tokenizer.model_max_length,
        getattr(model.config, "max_position_embeddings", None),
    ]
    # Tokenizers without a limit have a very large one; relative positions have -1 or 0.
    return min((int(limit) for limit in limits if limit and 0 < limit < 10**9), default=_DEFAULT_LENGTH)


def _any_token(tokenizer: Any) -> int:
    """The id of a token that is not padding."""
    return next(index for index in range(len(tokenizer)) if index != tokenizer.pad_token_id)


def _manifest(model: _Model, graph: GraphInfo, parameters: int, max_length: int) -> Manifest:
    config = model.config
    described = ModelInfo(
        "encoder", model.task, config.model_type, model.source.name, parameters, origin_of(model.source.path)
    )
    tokenizer = TokenizerInfo(
        "tokenizer.json", None, special_strings(model.tokenizer), truncation_side=model.tokenizer.truncation_side
    )
    vocabulary = VocabularyInfo(tokenizer, encoder_tokens(model.tokenizer), int(config.vocab_size), max_length)
    manifest = form_manifest(described, vocabulary, {"encoder": graph})
    return dataclasses.replace(manifest, encoder=_encoder_info(model, graph))


def _encoder_info(model: _Model, graph: GraphInfo) -> EncoderInfo:
    labels = label_names(model.config) if model.task in ("text-classification", "token-classification") else []
    problem: ProblemType | None = None
    if model.task == "text-classification":
        usual: ProblemType = "single_label_classification" if len(labels) > 1 else "multi_label_classification"
        problem = model.config.problem_type or usual
    relevance = relevance_of(model.config, model.source.path) if problem and len(labels) == 1 else None
    return EncoderInfo(
        embedding=_embedding(model, graph),
        labels=labels,
        problem_type=problem,
        relevance=relevance,
        context_first=reads_context_first(model.tokenizer, model.task),
    )


def _embedding(model: _Model, graph: GraphInfo) -> EmbeddingInfo | None:
    width = vector_width(graph.outputs, "sentence_embedding")
    if width is None:
        return None
    modules = model.modules
    return EmbeddingInfo(width, ", ".join(modules.pooling), modules.normalize, modules.prompts, modules.default_prompt)
