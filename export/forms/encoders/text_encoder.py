"""Determines how to export an encoder of texts: its task, its inputs, its limits, and sample texts."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from triform.export.checkpoint.gguf import loading as gguf
from triform.export.checkpoint.sentence.sentence_transformers import SentenceModules, lower_case, read_modules
from triform.export.checkpoint.source import Checkpoint
from triform.export.describe.encoder import reads_context_first
from triform.export.describe.special_tokens import name_padding, padding_of
from triform.export.graph.tracing import quiet_torch
from triform.export.options import ExportOptions
from triform.export.samples import texts
from triform.export.samples.batches import Array, Sample, padded
from triform.export.samples.pages import pages_of
from triform.export.tokenization.boxes import boxes_info, check_boxes
from triform.export.verify.encoder import ReferenceBatch
from triform.models.attention.local_global import whole_attention_limit
from triform.models.encoder.boxes import with_boxes
from triform.models.encoder.equal_lengths import shortest_row, without_padding
from triform.models.encoder.graph import reference_outputs
from triform.models.encoder.pooling import sentence_embedding
from triform.models.encoder.tasks import text_task
from triform.models.errors import UnsupportedModelError, first_line
from triform.models.spec import EncoderTask
from triform.runtime.bundle.manifest import ProblemType
from triform.runtime.bundle.text_info import BoxesInfo
from triform.runtime.errors import ExportError, InputError, TriformError, UnsupportedError, option
from triform.runtime.text.rows import RowReader

# Texts compared with PyTorch, and texts that the quantized graph is compared on.
_PARITY_ROWS, EVALUATION_ROWS = 5, 48
# Lengths compared with PyTorch where rows cannot be padded: around the sizes of blocks and strides, and the longest.
_PARITY_LENGTHS = (1, 5, 6, 7, 8, 31, 32, 33, 127, 128, 129, 10**6)
# For tokenizers and models that set no limit.
_DEFAULT_LENGTH = 512


@dataclass(frozen=True)
class TextEncoder:
    """A checkpoint and how to export it.

    Attributes:
        checkpoint: the model and its tokenizer.
        task: transformers' name of it.
        modules: pooling and what follows it, of sentence-transformers.
        traced: the computation to trace.
        max_length: most tokens of a row.
        min_length: fewest tokens of a row.
        boxes: how it reads where words stand on their page; None if it does not.
    """

    checkpoint: Checkpoint
    task: str
    modules: SentenceModules
    traced: EncoderTask
    max_length: int
    min_length: int = 1
    boxes: BoxesInfo | None = None

    @property
    def equal_lengths(self) -> bool:
        """Whether rows of one run must have the same number of tokens."""
        return "attention_mask" not in self.traced.names

    @property
    def context_first(self) -> bool:
        """See `EncoderInfo.context_first`."""
        return reads_context_first(self.checkpoint.tokenizer, self.task)

    @property
    def pad(self) -> int:
        """Token id that pads."""
        return padding_of(self.checkpoint, self.task) or 0

    @property
    def vocab_size(self) -> int:
        """Number of token ids that the model knows."""
        size = getattr(self.checkpoint.model.config.get_text_config(), "vocab_size", None)
        return int(self.checkpoint.tokenizer.vocab_size if size is None else size)

    @property
    def problem_type(self) -> ProblemType | None:
        """The kind of classification, in transformers' terms; None for other tasks."""
        config = self.checkpoint.model.config
        if self.task != "text-classification":
            return None
        # transformers' default.
        if config.problem_type is None:
            return "multi_label_classification" if config.num_labels == 1 else "single_label_classification"
        problem_type: ProblemType = config.problem_type
        return problem_type


def text_encoder(checkpoint: Checkpoint, options: ExportOptions) -> TextEncoder:
    """Determine how to export a checkpoint.

    Raises:
        ExportError: its sentence-transformers modules cannot be read.
        UnsupportedError: the task is not supported, or the model cannot run without padding.
        InputError: the context length is beyond the model's.
    """
    model, task = checkpoint.model, checkpoint.source.task
    name_padding(checkpoint, task)
    modules = _modules(checkpoint, task)
    if modules.lower_case:
        lower_case(checkpoint.tokenizer)
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
        with quiet_torch():
            traced, form = with_boxes(model, traced)
            traced = without_padding(model, traced)
            min_length = shortest_row(model, traced) if "attention_mask" not in traced.inputs else 1
    except UnsupportedModelError as error:
        raise UnsupportedError(f"{checkpoint.source.name} cannot be exported: {error}") from error
    boxes = None if form is None else boxes_info(checkpoint.tokenizer, form)
    if boxes is not None and reads_context_first(checkpoint.tokenizer, task):
        raise UnsupportedError(
            f"{checkpoint.source.name} reads a page before its question, because its tokenizer pads on the left, which "
            'no bundle does; set "padding_side" in tokenizer_config.json to right if it was trained the other way'
        )
    encoder = TextEncoder(
        checkpoint, task, modules, traced, _max_length(checkpoint, modules, options), min_length, boxes
    )
    if boxes is not None and boxes.whole:
        check_boxes(checkpoint.tokenizer, _reader(encoder))
    return encoder


def _modules(checkpoint: Checkpoint, task: str) -> SentenceModules:
    """The modules of a sentence-transformers folder; mean pooling for any other checkpoint."""
    if checkpoint.source.gguf is not None:
        pooling, dense = gguf.read_gguf_pooling(checkpoint.source.gguf), gguf.read_gguf_dense(checkpoint.source.gguf)
        return SentenceModules(dense=dense) if pooling is None else SentenceModules(pooling=(pooling,), dense=dense)
    modules = read_modules(checkpoint.source.path) if task in ("feature-extraction", "text-classification") else None
    if modules is None:
        return SentenceModules()
    width = getattr(checkpoint.model.config.get_text_config(), "hidden_size", None)
    if task == "feature-extraction" and modules.width is not None and width is not None and modules.width != width:
        raise ExportError(
            f"the pooling of {checkpoint.source.name} is for vectors of {modules.width} numbers but gets {width}"
        )
    return modules


def _with_embedding(traced: EncoderTask, modules: SentenceModules) -> EncoderTask:
    """The same task with one more output, the vector of the whole text."""

    def outputs(values: Any) -> dict[str, torch.Tensor]:
        if "last_hidden_state" not in values:
            raise UnsupportedModelError("it gives no states of tokens, of which a vector of the text could be made")
        states, mask = values["last_hidden_state"], values["attention_mask"]
        lengths = values.get("prompt_lengths")
        vector = sentence_embedding(states, mask, modules.pooling, modules.dense, modules.normalize, lengths)
        vector = vector[:, : modules.dimensions]
        return {**traced.outputs(values), "sentence_embedding": vector}

    return dataclasses.replace(traced, outputs=outputs, beside=() if modules.include_prompt else ("prompt_lengths",))


def text_samples(encoder: TextEncoder, passages: Iterable[str]) -> list[Sample]:
    """Passages of a text, tokenized by the checkpoint's own tokenizer; not those that are too short for the model."""
    names = encoder.traced.names
    samples: list[Sample] = []
    for encoded in _encoded(encoder, passages):
        if len(encoded["input_ids"]) < encoder.min_length:
            continue
        arrays: dict[str, Array] = {key: np.asarray(encoded[key]) for key in names if key in encoded}
        arrays["input_ids"] %= encoder.vocab_size
        if encoder.traced.picks_positions:
            arrays["logits_positions"] = np.arange(2)
        if "prompt_lengths" in names:
            # Prompts of no token up to all but the last.
            arrays["prompt_lengths"] = np.array(len(samples) % len(arrays["input_ids"]))
        samples.append(arrays)
    return samples


def _encoded(encoder: TextEncoder, passages: Iterable[str]) -> Iterator[Mapping[str, Any]]:
    """What the tokenizer gives for each text, in arrays; where the model reads boxes, for a page with its words."""
    tokenizer = encoder.checkpoint.tokenizer
    if encoder.boxes is None:
        for text in passages:
            encoded = tokenizer(text, truncation=True, max_length=encoder.max_length)
            yield {name: np.array(values, np.int64) for name, values in encoded.items()}
        return
    for row in _reader(encoder).stream(pages_of(passages)):
        ids, type_ids = np.array(row.ids, np.int64), np.array(row.type_ids, np.int64)
        yield {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": type_ids, "bbox": row.boxes}


def _reader(encoder: TextEncoder) -> RowReader:
    """The reader of a bundle, with a copy of the tokenizer, whose settings it changes."""
    copy = Tokenizer.from_str(encoder.checkpoint.tokenizer.backend_tokenizer.to_str())
    return RowReader(copy, encoder.max_length, encoder.vocab_size, boxes=encoder.boxes)


def parity_batches(encoder: TextEncoder) -> list[list[Sample]]:
    """Samples to compare with PyTorch: one batch of all lengths, or one batch for each of several lengths."""
    samples = text_samples(encoder, texts.passages("evaluation", _PARITY_ROWS))
    if not encoder.equal_lengths:
        return [samples]
    longest = max(len(sample["input_ids"]) for sample in samples)
    lengths = {max(encoder.min_length, min(longest, length)) for length in _PARITY_LENGTHS}
    return [
        [
            {name: array[:length] for name, array in sample.items()}
            for sample in samples
            if len(sample["input_ids"]) >= length
        ]
        for length in sorted(lengths, reverse=True)
    ]


def text_reference(encoder: TextEncoder, samples: list[Sample]) -> ReferenceBatch:
    """Run PyTorch's model on a batch."""
    return ReferenceBatch(samples, text_outputs(encoder, padded(samples, encoder.pad)), encoder.pad)


def text_outputs(encoder: TextEncoder, arrays: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
    """PyTorch's outputs for the arrays of a batch.

    Raises:
        ExportError: the model itself refuses what its tokenizer makes of a text.
    """
    try:
        return reference_outputs(encoder.checkpoint.model, encoder.traced, _tensors(encoder, arrays))
    except (TriformError, UnsupportedModelError):
        raise
    except Exception as error:  # each class of transformers has checks of its own
        raise ExportError(
            f"{encoder.checkpoint.source.name} does not take texts as its tokenizer reads them: {first_line(error)}"
        ) from error


def _tensors(encoder: TextEncoder, arrays: Mapping[str, Array]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(arrays[name]) for name in encoder.traced.names)


def _max_length(checkpoint: Checkpoint, modules: SentenceModules, options: ExportOptions) -> int:
    positions = _positions(checkpoint.model)
    # The limit of sentence-transformers replaces the tokenizer's.
    limits = [modules.max_length or checkpoint.tokenizer.model_max_length, positions]
    # Tokenizers without a limit have a very large one.
    own = min((int(limit) for limit in limits if limit and 0 < limit < 10**9), default=_DEFAULT_LENGTH)
    context_length = options.context_length
    if context_length is not None and positions is not None and context_length > positions:
        raise InputError(
            f"{option('context_length')} {context_length} is more than the model's own limit of {positions}"
        )
    return context_length or own


def _positions(model: PreTrainedModel) -> int | None:
    """How many tokens the model has positions for, and reads as a whole; None when there is no limit."""
    whole = whole_attention_limit(model.config)
    if whole is not None:
        return whole
    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        # RoBERTa and models like it start counting positions after the padding index.
        if limit and isinstance(table, torch.nn.Embedding) and table.padding_idx is not None:
            return int(limit) - table.padding_idx - 1
    return limit if limit and limit > 0 else None
