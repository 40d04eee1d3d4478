"""What an encoder of texts is exported for: its task, its limits, and the texts it is tried with."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel

from triform.export.checkpoint.sentence_transformers import SentenceModules, check_case, read_modules
from triform.export.checkpoint.source import Checkpoint
from triform.export.graph.tracing import quiet
from triform.export.options import ExportOptions
from triform.export.samples import texts
from triform.export.samples.batches import Sample
from triform.models.encoder.equal_lengths import shortest_row, without_padding
from triform.models.encoder.pooling import sentence_embedding
from triform.models.encoder.tasks import task_of, text_task
from triform.models.errors import UnsupportedModelError
from triform.models.spec import EncoderTask
from triform.runtime.errors import InputError, UnsupportedError, option

# Texts compared with PyTorch, and compared with the quantized graph.
PARITY_ROWS, COMPARED_ROWS = 5, 48
# Of rows compared with PyTorch where padding would be read: around the sizes of blocks and strides, and the longest.
_PARITY_LENGTHS = (1, 5, 6, 7, 8, 31, 32, 33, 127, 128, 129, 10**6)
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
    min_length: int = 1

    @property
    def equal_lengths(self) -> bool:
        """Whether rows of one run must have the same number of tokens."""
        return "attention_mask" not in self.names


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
    try:
        with quiet():
            traced = without_padding(model, traced)
            min_length = shortest_row(model, traced) if "attention_mask" not in traced.inputs else 1
    except UnsupportedModelError as error:
        raise UnsupportedError(f"{checkpoint.source.name} cannot be exported: {error}") from error
    max_length = _max_length(checkpoint, modules, options)
    return Subject(checkpoint, task, modules, traced, traced.names, max_length, min_length)


def _with_embedding(traced: EncoderTask, modules: SentenceModules) -> EncoderTask:
    """The same task with one more output, the vector of the whole text."""

    def outputs(found: Any) -> dict[str, torch.Tensor]:
        states, mask = found["last_hidden_state"], found["attention_mask"]
        lengths = found.get("prompt_lengths")
        vector = sentence_embedding(states, mask, modules.pooling, modules.dense, modules.normalize, lengths)
        return {**traced.outputs(found), "sentence_embedding": vector}

    return dataclasses.replace(traced, outputs=outputs, beside=() if modules.include_prompt else ("prompt_lengths",))


def samples_of(subject: Subject, name: Literal["calibration", "evaluation"], count: int) -> list[Sample]:
    """Rows of a text, as the checkpoint's own tokenizer makes them."""
    tokenizer = subject.checkpoint.tokenizer
    vocab = vocab_size(subject.checkpoint)
    found: list[Sample] = []
    for text in texts.passages(name, count):
        encoded = tokenizer(text, truncation=True, max_length=subject.max_length)
        arrays = {name: np.array(encoded[name], np.int64) for name in subject.names if name in encoded}
        arrays["input_ids"] %= vocab
        if subject.traced.picks_positions:
            arrays["logits_positions"] = np.arange(2)
        if "prompt_lengths" in subject.names:
            # From none to all tokens but the last.
            arrays["prompt_lengths"] = np.array(len(found) % len(arrays["input_ids"]))
        found.append(arrays)
    return found


def parity_batches(subject: Subject) -> list[list[Sample]]:
    """Inputs to compare with PyTorch, as batches: one of all lengths, or one for each of several lengths."""
    samples = samples_of(subject, "evaluation", PARITY_ROWS)
    if not subject.equal_lengths:
        return [samples]
    longest = max(len(sample["input_ids"]) for sample in samples)
    lengths = {max(subject.min_length, min(longest, wanted)) for wanted in _PARITY_LENGTHS}
    return [
        [{name: array[:length] for name, array in sample.items()} for sample in samples if _fits(sample, length)]
        for length in sorted(lengths, reverse=True)
    ]


def _fits(sample: Sample, length: int) -> bool:
    return len(sample["input_ids"]) >= length


def vocab_size(checkpoint: Checkpoint) -> int:
    """How many token ids the model knows."""
    known = getattr(checkpoint.model.config.get_text_config(), "vocab_size", None)
    return int(checkpoint.tokenizer.vocab_size if known is None else known)


def _max_length(checkpoint: Checkpoint, modules: SentenceModules, options: ExportOptions) -> int:
    # What a folder of sentence-transformers says replaces what its tokenizer says.
    limits = [modules.max_length or checkpoint.tokenizer.model_max_length, _positions(checkpoint.model)]
    known = [int(limit) for limit in limits if limit and limit < 10**9]
    own = min(known, default=_DEFAULT_LENGTH)
    asked = options.context_length
    positions = _positions(checkpoint.model)
    if asked is not None and positions is not None and asked > positions:
        raise InputError(f"{option('context_length')} {asked} is more than the model's own limit of {positions}")
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


def problem_type_of(subject: Subject) -> str | None:
    """What a classification's scores are; None for other tasks."""
    config = subject.checkpoint.model.config
    if subject.task != "text-classification":
        return None
    # What transformers assumes of a config that does not say.
    one = "multi_label_classification" if config.num_labels == 1 else "single_label_classification"
    return config.problem_type or one
