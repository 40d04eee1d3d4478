"""Runs an imported graph and the original side by side, and rows alone and in a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from triform.export.checkpoint.sentence.sentence_transformers import SentenceModules
from triform.export.onnx_import.graph import TOKEN_TYPES
from triform.export.runners import EncoderRunner
from triform.export.samples import texts
from triform.export.samples.batches import Array, Sample, padded
from triform.models.encoder.pooling import sentence_embedding
from triform.runtime.errors import ExportError

_ROWS = 4
# Of the largest number. The order of sums differs where pooling was added.
_TOLERANCE = 1e-4
# What the original's rounding of an output to half floats changes: ONNX Runtime leaves it out where the imported graph
# takes the output as floats.
_OF_HALF = float(np.finfo(np.float16).eps) / 2
_TYPES = {"tensor(int32)": np.int32, "tensor(float)": np.float32, "tensor(bool)": np.bool_}
# Above what the rounding of floats gives.
_SAME = 1e-3


def samples_of(tokenizer: Any, names: Sequence[str], max_length: int) -> list[Sample]:
    """Passages of different lengths."""
    passages = texts.passages("evaluation", _ROWS)
    samples: list[Sample] = []
    for number, text in enumerate(passages):
        encoded = tokenizer(text, truncation=True, max_length=max(8, max_length // (number + 1)))
        samples.append({name: np.array(encoded[name], np.int64) for name in names if name in encoded})
    return samples


def longest_row(runner: EncoderRunner, names: Sequence[str], limit: int, offset: int, token: int) -> int:
    """The most tokens that a graph reads: `limit`, or where it fails at that, `offset` less.

    Models like RoBERTa count positions from behind the padding token's id, and have as many fewer for tokens.

    Raises:
        ExportError: it fails at both.
    """
    for length in (limit, limit - offset):
        values = {"input_ids": token, "attention_mask": 1, "token_type_ids": 0}
        try:
            runner.run(_typed(runner, {name: np.full((1, length), values[name], np.int64) for name in names}))
        except ExportError as error:
            failure = error
        else:
            return length
    raise ExportError(f"the graph cannot read {limit} tokens, as its config says: {failure}")


def check_same(
    original: EncoderRunner,
    imported: EncoderRunner,
    samples: Sequence[Sample],
    pad: int,
    modules: SentenceModules | None,
) -> None:
    """Compare the outputs for one batch.

    Args:
        original: the graph as it came, which takes what `samples` have.
        imported: the graph as it was written.
        samples: rows.
        pad: the token that pads.
        modules: pooling that was added to the imported graph; None if none was.

    Raises:
        ExportError: they differ.
    """
    arrays = padded(samples, pad)
    # Computed in the imported graph, where the tokenizer gives none.
    types = (
        {}
        if TOKEN_TYPES in arrays or TOKEN_TYPES not in original.inputs
        else {TOKEN_TYPES: np.zeros_like(arrays["input_ids"])}
    )
    before = original.run(_typed(original, {**arrays, **types}))
    rounded = _OF_HALF if any(values.dtype == np.float16 for values in before.values()) else 0.0
    if "token_embeddings" in before:
        before["last_hidden_state"] = before["token_embeddings"]
    if modules is not None:
        before["sentence_embedding"] = _pooled(before["last_hidden_state"], arrays["attention_mask"], modules)
    extra = {"logits_positions": np.tile(np.arange(2), (len(samples), 1))}
    picks = "logits_positions" in imported.inputs
    after = imported.run({**arrays, **(extra if picks else {})})
    if picks:
        before["logits"] = before["logits"][:, :2]
    for name, values in after.items():
        expected = np.asarray(before[name], np.float32)
        if values.shape != expected.shape or not _within(values, expected, _TOLERANCE + rounded):
            raise ExportError(f"the output {name} of the imported graph differs from the original's; report this model")


def batch_effect(imported: EncoderRunner, samples: Sequence[Sample], pad: int) -> float:
    """The largest difference between a row alone and in a padded batch, as a share of the largest number.

    Only outputs without an axis for tokens, or the first token of those with one, are compared.

    Raises:
        ExportError: a row gives something else than numbers.
    """
    picks: Mapping[str, Array] = {"logits_positions": np.zeros((1, 1), np.int64)}
    used = picks if "logits_positions" in imported.inputs else {}
    together = imported.run(
        {**padded(samples, pad), **{name: np.repeat(a, len(samples), 0) for name, a in used.items()}}
    )
    worst = 0.0
    for place, sample in enumerate(samples):
        alone = imported.run({**padded([sample], pad), **used})
        for name, values in alone.items():
            first, second = (values[0], together[name][place])
            if name in imported.ragged:
                first, second = first[:1], second[:1]
            # Of a NaN max() would say that it is no effect.
            if not (np.isfinite(first).all() and np.isfinite(second).all()):
                raise ExportError(f"the output {name} of the graph is not finite for some texts; report this model")
            worst = max(worst, float(np.abs(first - second).max() / max(1e-9, float(np.abs(first).max()))))
    return worst if worst > _SAME else 0.0


def _typed(runner: EncoderRunner, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays in the types that a graph takes."""
    return {name: array.astype(_TYPES.get(runner.inputs[name], np.int64)) for name, array in arrays.items()}


def _pooled(states: Array, mask: Array, modules: SentenceModules) -> Array:
    tensors = torch.from_numpy(np.asarray(states, np.float32)), torch.from_numpy(mask)
    result: Array = sentence_embedding(*tensors, modules.pooling, (), modules.normalize).numpy()
    return result


def _within(values: Array, expected: Array, tolerance: float) -> bool:
    scale = max(1e-9, float(np.abs(expected).max()))
    return bool(np.isfinite(values).all() and np.abs(values - expected).max() <= tolerance * scale)
