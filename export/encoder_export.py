"""An encoder becomes a bundle: trace, fuse, verify, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel

from triform.export import source, texts
from triform.export.cores import usable_cores
from triform.export.decoding import clean_up_decoding
from triform.export.encoder_quantize import quantize_encoder
from triform.export.fuse_biases import fuse_biases
from triform.export.fused_graph import encoder_notes, fused_graph
from triform.export.lower import lower_to_float
from triform.export.normal_config import normal_config
from triform.export.options import ExportOptions
from triform.export.report import Clock, Report, versions
from triform.export.sentence_transformers import SentenceModules, check_case, read_modules
from triform.export.source import Checkpoint, Source, save_tokenizer
from triform.export.verify_encoder import EncoderRunner, Sample, compare_quantized, compare_with_reference, padded
from triform.export.write import describe_files, describe_graph, staged, write_graph
from triform.models.encoder import EncoderTask, encoder_spec, reference_outputs
from triform.models.encoder_tasks import head_of, task_of, text_task
from triform.models.errors import UnsupportedModelError
from triform.models.pooling import sentence_embedding
from triform.models.spec import GraphSpec
from triform.runtime import manifest as contract
from triform.runtime.errors import ExportError, InputError, UnsupportedError

# Texts compared with PyTorch, calibrated on, and compared with the quantized graph.
PARITY_ROWS, _CALIBRATION_ROWS, COMPARED_ROWS = 5, 48, 48
# For tokenizers and models that set no limit.
_DEFAULT_LENGTH = 512


@dataclass(frozen=True)
class Subject:
    """A checkpoint and what it is to be exported for."""

    checkpoint: Checkpoint
    task: str
    modules: SentenceModules
    traced: EncoderTask
    names: tuple[str, ...]
    max_length: int


def plan(found: Source, config: PretrainedConfig, options: ExportOptions) -> list[tuple[str, str]]:
    """What `export` would do, from the config alone: rows of (what, value)."""
    normal = normal_config(config)
    name = options.quantize or "int8"
    return [
        ("model", found.name),
        ("form", "encoder"),
        ("task", options.task or task_of(config)),
        ("model type", config.model_type),
        ("layers", str(normal.get("num_layers", "?"))),
        ("hidden size", str(normal.get("hidden_size", "?"))),
        ("vocabulary", str(normal.get("vocab_size", "?"))),
        ("weights", "float32" if name == "none" else name),
        ("steps", "load, trace, fuse, verify against PyTorch, quantize, compare, write"),
    ]


def load(found: Source, config: PretrainedConfig, options: ExportOptions) -> Checkpoint:
    """Load the checkpoint with its task's head.

    Raises:
        ExportError: see `source.load`.
    """
    task = options.task or task_of(config)
    auto_class = head_of(task).auto_class
    if task == "feature-extraction" and getattr(config, "is_encoder_decoder", False):
        auto_class = transformers.AutoModelForTextEncoding
    unused = ("pooler",) if task == "feature-extraction" else ()
    return source.load(found, config, auto_class, unused=unused)


def export(checkpoint: Checkpoint, bundle: Path, options: ExportOptions, clock: Clock) -> Report:
    """Turn a loaded encoder into a verified bundle.

    Raises:
        ExportError: the target cannot be used, or the graph does not match PyTorch.
        UnsupportedError: the architecture cannot be traced.
    """
    subject = subject_of(checkpoint, options)
    pad = checkpoint.tokenizer.pad_token_id or 0
    quantized = options.quantize != "none"
    with staged(bundle, options.force) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        samples = samples_of(subject, "evaluation", PARITY_ROWS)
        with clock.step("reference"):
            batch = padded(samples, pad)
            inputs = tuple(torch.from_numpy(batch[name]) for name in subject.names)
            expected = reference_outputs(checkpoint.model, subject.traced, inputs)
        graph, spec = _graph(subject, clock)
        with clock.step("verify"):
            path = (Path(scratch) if quantized else folder) / "encoder.onnx"
            twin = graph.clone() if quantized else graph
            lower_to_float(twin)
            fuse_biases(twin)
            write_graph(twin, path)
            runner = EncoderRunner(path, usable_cores())
            parity = compare_with_reference(runner, spec.outputs, expected, samples, pad)
        quantization = contract.Quantization("none")
        if quantized:
            with clock.step("quantize"):
                calibration = samples_of(subject, "calibration", _CALIBRATION_ROWS)
                quantization = quantize_encoder(graph, options, calibration, Path(scratch), usable_cores())
                write_graph(graph, folder / "encoder.onnx")
            with clock.step("compare"):
                small = EncoderRunner(folder / "encoder.onnx", usable_cores())
                compared = samples_of(subject, "evaluation", COMPARED_ROWS)
                judged = spec.outputs[-1]
                measured = compare_quantized(lambda one: runner.run(one)[judged], small, judged, compared, pad)
                parity = dataclasses.replace(parity, quantized=measured)
        with clock.step("write"):
            save_tokenizer(checkpoint.tokenizer, folder)
            clean_up_decoding(checkpoint.tokenizer, folder)
            info = describe_graph(graph, folder / "encoder.onnx", quantization, encoder_notes(graph))
            record = _manifest(subject, spec, info, folder)
            times = contract.ExportInfo(versions(), dict(clock.seconds), encoder_parity=parity)
            record = dataclasses.replace(record, export=times)
            (folder / contract.MANIFEST).write_text(record.to_json(), encoding="utf-8")
    size_after = sum(file.stat().st_size for file in bundle.iterdir())
    return Report(bundle, clock.seconds, checkpoint.weights_size, size_after, parity)


def subject_of(checkpoint: Checkpoint, options: ExportOptions) -> Subject:
    """What a checkpoint is to be exported for, and how.

    Raises:
        ExportError: its sentence-transformers modules cannot be read.
        UnsupportedError: there is no such task.
        InputError: the context length is beyond the model's.
    """
    config, model = checkpoint.model.config, checkpoint.model
    task = options.task or task_of(config)
    found = read_modules(Path(checkpoint.source.location)) if task == "feature-extraction" else None
    modules = found or SentenceModules()
    check_case(modules, checkpoint.tokenizer)
    accepted = inspect.signature(model.forward).parameters
    inputs = tuple(
        name
        for name in ("input_ids", "attention_mask", "token_type_ids")
        if name in accepted and (name != "token_type_ids" or name in checkpoint.tokenizer.model_input_names)
    )
    try:
        traced = text_task(task, inputs, options.hidden_states)
    except UnsupportedModelError as error:
        raise UnsupportedError(str(error)) from error
    if task == "feature-extraction":
        traced = _with_embedding(traced, modules)
    names = (*inputs, *(("logits_positions",) if traced.picks_positions else ()))
    return Subject(checkpoint, task, modules, traced, names, _max_length(checkpoint, modules, options))


def _with_embedding(traced: EncoderTask, modules: SentenceModules) -> EncoderTask:
    """The same task with one more output, the vector of the whole text."""

    def outputs(found: Any) -> dict[str, torch.Tensor]:
        states, mask = found["last_hidden_state"], found["attention_mask"]
        vector = sentence_embedding(states, mask, modules.pooling, modules.dense, modules.normalize)
        return {**traced.outputs(found), "sentence_embedding": vector}

    return dataclasses.replace(traced, outputs=outputs)


def _graph(subject: Subject, clock: Clock) -> tuple[ir.Model, GraphSpec]:
    model = subject.checkpoint.model
    return fused_graph(
        subject.checkpoint.source.name,
        lambda: encoder_spec(model, subject.traced, "encoder", subject.max_length),
        clock,
    )


def samples_of(subject: Subject, name: Literal["calibration", "evaluation"], count: int) -> list[Sample]:
    """Rows of a text, as the checkpoint's own tokenizer makes them."""
    tokenizer = subject.checkpoint.tokenizer
    vocab = subject.checkpoint.model.config.get_text_config().vocab_size
    found: list[Sample] = []
    for text in texts.passages(name, count):
        encoded = tokenizer(text, truncation=True, max_length=subject.max_length)
        arrays = {name: np.array(encoded[name], np.int64) for name in subject.names if name in encoded}
        arrays["input_ids"] %= vocab
        if subject.traced.picks_positions:
            arrays["logits_positions"] = np.arange(2)
        found.append(arrays)
    return found


def _max_length(checkpoint: Checkpoint, modules: SentenceModules, options: ExportOptions) -> int:
    # What a folder of sentence-transformers says replaces what its tokenizer says.
    limits = [modules.max_length or checkpoint.tokenizer.model_max_length, _positions(checkpoint.model)]
    known = [int(limit) for limit in limits if limit and limit < 10**9]
    own = min(known, default=_DEFAULT_LENGTH)
    asked = options.context_length
    positions = _positions(checkpoint.model)
    if asked is not None and positions is not None and asked > positions:
        raise InputError(f"--context-length {asked} is more than the model's own limit of {positions}")
    return asked or own


def _positions(model: PreTrainedModel) -> int | None:
    """How many tokens the model has positions for; None when any number."""
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        # RoBERTa and its kin count positions from behind the padding's.
        if limit and isinstance(table, torch.nn.Embedding) and table.padding_idx is not None:
            return int(limit) - table.padding_idx - 1
    return limit if limit and limit > 0 else None


def _manifest(subject: Subject, spec: GraphSpec, graph: contract.GraphInfo, folder: Path) -> contract.Manifest:
    model, tokenizer = subject.checkpoint.model, subject.checkpoint.tokenizer
    config = model.config
    special = {key: str(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    eos = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return contract.Manifest(
        schema_version=contract.SCHEMA_VERSION,
        triform_version=importlib.metadata.version("triform"),
        form="encoder",
        task=subject.task,
        model_type=config.model_type,
        model_name=subject.checkpoint.source.name,
        graphs={"encoder": graph},
        cache=None,
        max_length=subject.max_length,
        vocab_size=int(config.get_text_config().vocab_size),
        parameters=model.num_parameters(),
        tokens=contract.Tokens(tokenizer.bos_token_id, eos, tokenizer.pad_token_id, tokenizer.mask_token_id),
        generation=contract.GenerationDefaults(),
        tokenizer=contract.TokenizerInfo("tokenizer.json", None, special),
        files=describe_files(folder),
        export=contract.ExportInfo({}, {}),
        encoder=_encoder_info(subject, spec, graph),
    )


def _encoder_info(subject: Subject, spec: GraphSpec, graph: contract.GraphInfo) -> contract.EncoderInfo:
    config, modules = subject.checkpoint.model.config, subject.modules
    embedding = None
    for output in graph.outputs:
        if output.name == "sentence_embedding":
            width = output.shape[-1]
            if not isinstance(width, int):
                raise ExportError("the sentence embedding has no fixed width; please report this model")
            pooling = ", ".join(modules.pooling)
            embedding = contract.EmbeddingInfo(
                width, pooling, modules.normalize, modules.prompts, modules.default_prompt
            )
    labelled = subject.task in ("text-classification", "token-classification")
    labels = [str(config.id2label[index]) for index in range(config.num_labels)] if labelled else []
    problem = None
    if subject.task == "text-classification":
        # What transformers assumes of a config that does not say.
        one = "multi_label_classification" if config.num_labels == 1 else "single_label_classification"
        problem = config.problem_type or one
    kept = sum(name.startswith("hidden_states.") for name in spec.outputs)
    return contract.EncoderInfo(embedding=embedding, labels=labels, problem_type=problem, hidden_states=kept)
