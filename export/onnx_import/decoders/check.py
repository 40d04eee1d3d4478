"""Runs an imported decoder and the graph that it was made of side by side, and it alone in every way it is used."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from triform.export.checkpoint.quiet import quiet
from triform.export.checkpoint.source import Checkpoint
from triform.export.concatenated_runner import decoder_runner
from triform.export.onnx_import.decoders.graph import Names
from triform.export.runners import EncoderRunner, Result, fed, usable_cores
from triform.export.samples import texts
from triform.export.samples.batches import Array
from triform.export.verify.decoder import (
    RELATIVE_TOLERANCE,
    decoder_parity,
    parity_feedings,
    parity_of,
    quantized_decoder_parity,
    reference_logits,
)
from triform.export.verify.worst import worst_difference
from triform.runtime.bundle.export_record import Parity
from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.errors import ExportError, option

_TOKENS, _FEWEST = 96, 24
# Of the largest logit, where activations are rounded to 8 or 16 bits, and the last digits decide to what.
_ROUNDED = 0.02
# The same for a batch, whose rows are rounded as they are alone, or nearly.
_BATCHED = 0.1
# Where tokens are rounded together, logits of SmolLM2 in chunks and at once have a correlation of 0.95.
_ALIKE = 0.8
# How a text alone is fed, see `parity_feedings`.
_WAYS = ("prefill", "chunked", "step")
ARRAY_TYPES: dict[str, Any] = {
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(bool)": np.bool_,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
}


class OriginalDecoder:
    """A graph as it came, fed one text; methods as `DecoderRunner`."""

    def __init__(self, path: Path, names: Names, cache: CacheInfo) -> None:
        """Open a graph.

        Args:
            path: its file.
            names: of its tensors.
            cache: has the sizes of heads.

        Raises:
            ExportError: it cannot be opened.
        """
        self._runner, self._path, self._names, self._cache = EncoderRunner(path, usable_cores()), path, names, cache
        self.start(1, 0)

    def start(self, batch: int, capacity: int) -> None:
        """Empty the cache; `batch` is 1."""
        self._past, self._length = {}, 0
        for index, layer in enumerate(self._cache.layers):
            for pattern in (self._names.past_key, self._names.past_value):
                kind = ARRAY_TYPES[self._runner.inputs[pattern % index]]
                self._past[pattern % index] = np.zeros((1, layer.num_key_value_heads, 0, layer.head_dim), kind)

    def feed(self, input_ids: Array, positions: Array) -> tuple[Array, dict[str, Array]]:
        """Run one chunk.

        Raises:
            ExportError: the graph cannot be run, or gives logits of fewer tokens than it reads.
        """
        count, names = input_ids.shape[1], self._names
        values: dict[str, Any] = {
            "input_ids": input_ids,
            "attention_mask": np.ones((1, self._length + count)),
            "position_ids": np.arange(self._length, self._length + count)[None],
            "use_cache_branch": [self._length > 0],
            "num_logits_to_keep": 0,
        }
        feeds = dict(self._past)
        for ours, value in values.items():
            name = names.inputs.get(ours, ours)
            if name in self._runner.inputs:
                feeds[name] = np.asarray(value, ARRAY_TYPES[self._runner.inputs[name]])
        results = self._runner.run(feeds)
        layers = range(len(self._cache.layers))
        pairs = ((names.past_key, names.present_key), (names.past_value, names.present_value))
        self._past = {past % index: results[present % index] for index in layers for past, present in pairs}
        self._length += count
        logits = results[names.logits].astype(np.float32)
        if logits.shape[1] != count:
            raise ExportError(f"{self._path} gives logits of {logits.shape[1]} of {count} tokens; all are needed")
        return logits[:, positions[0]], {}


def sample_ids(tokenizer: Any, vocab_size: int, limit: int) -> list[int]:
    """Tokens to compare with.

    Raises:
        ExportError: the model reads too few.
    """
    count = min(_TOKENS, limit - 8)
    if count < _FEWEST:
        raise ExportError(f"the model reads {limit} tokens at most, too few to compare it: {_FEWEST + 8} are needed")
    with quiet():
        # It warns that the whole text is longer than the model's context.
        ids = tokenizer(texts.read_text("evaluation"))["input_ids"][:count]
    return [token % vocab_size for token in ids]


def longest_text(path: Path, cache: CacheInfo, limit: int) -> int:
    """The most tokens that a graph reads: `limit`, or fewer where its table of positions ends before.

    Raises:
        ExportError: it reads none.
    """
    if cache.growth == "in_place" or _reaches(path, cache, limit):
        return limit
    fits, fails = 1, limit
    if not _reaches(path, cache, fits):
        raise ExportError(f"{path.name} cannot be run on a token")
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if _reaches(path, cache, middle) else (fits, middle)
    return fits


def _reaches(path: Path, cache: CacheInfo, length: int) -> bool:
    """Whether a graph reads a token in the last place of a text; the text is left out, as it would be large."""
    runner = decoder_runner(path, cache, usable_cores())
    runner.start(1, 1)
    runner.lengths = np.array([length - 1], np.int32)
    try:
        runner.feed(np.array([[1]]), np.zeros((1, 1), np.int64))
    except ExportError:
        return False
    return True


def compare_with_original(
    original: OriginalDecoder,
    path: Path,
    cache: CacheInfo,
    ids: list[int],
    *,
    exact: bool,
    together: bool,
    told: bool,
) -> tuple[bool, float]:
    """Compare a text at once, in chunks and in single steps with the original, and a batch with the text alone.

    Args:
        original: the graph as it came.
        path: of the imported graph.
        cache: what it keeps, uneven.
        ids: the text.
        exact: whether the graph computes in float32 throughout.
        together: whether it rounds all tokens of a run with one scale.
        told: whether it is told all that rows of different lengths need.

    Returns:
        whether rows of different lengths can be run together, and if it is not exact, the largest difference as a share
        of the largest logit.

    Raises:
        ExportError: the imported graph computes something else, or something else in chunks than at once.
    """
    feedings = parity_feedings(ids)
    ours = list(fed(decoder_runner(path, cache, usable_cores()), feedings))
    theirs = list(fed(original, feedings[: len(_WAYS)]))
    expected = theirs[0][0][0]
    parity = parity_of(iter(ours), expected, ids)
    share = RELATIVE_TOLERANCE if exact else _ROUNDED
    allowed = share * parity.scale
    for (mine, _), (other, _) in zip(ours, theirs, strict=False):
        # Written so that NaN fails too.
        if not (np.abs(mine - other) <= allowed).all():
            raise ExportError(
                "the imported graph does not compute what the original does: logits differ by "
                f"{np.abs(mine - other).max():.2g} (allowed {allowed:.2g}); export the checkpoint instead"
            )
    _check_ways(parity, ours, expected, allowed, exact=exact)
    if cache.growth == "in_place" and exact and not parity.ragged <= allowed:
        raise ExportError(f"rows of a batch differ by {parity.ragged:.2g} (allowed {allowed:.2g}) from those alone")
    # Where tokens are rounded together, a difference does not tell what it comes from.
    fits = parity.ragged <= (allowed if exact else _BATCHED * parity.scale)
    uneven = cache.growth == "in_place" or (fits if exact else told and (together or fits))
    worst = max(parity.chunked, parity.step, parity.ragged if uneven else 0.0) / parity.scale
    return uneven, 0.0 if exact else worst


def _check_ways(parity: Parity, ours: list[Result], expected: Array, allowed: float, *, exact: bool) -> None:
    """Refuse a graph that reads a text in chunks, or step by step, in another way than at once."""
    start = 0
    for name, feeding_size in zip(_WAYS, _run_counts(ours, len(expected)), strict=True):
        logits = np.concatenate([result[0][0] for result in ours[start : start + feeding_size]])
        start += feeding_size
        fits = getattr(parity, name) <= allowed if exact else _alike(logits, expected) >= _ALIKE
        if not fits:
            raise ExportError(
                f"this graph reads a text in one way only: {name} logits differ by {getattr(parity, name):.2g} from "
                "those of the text at once; export the model again with a newer version of the tool that made it"
            )


def _run_counts(ours: list[Result], count: int) -> list[int]:
    """The number of runs of each way that reads one whole text."""
    runs, counts, read = 0, [], 0
    for logits, _ in ours:
        runs, read = runs + 1, read + logits.shape[1]
        if read == count:
            counts.append(runs)
            runs = read = 0
        if len(counts) == len(_WAYS):
            break
    return counts


def _alike(logits: Array, expected: Array) -> float:
    """The mean correlation of the logits of a token."""
    one, other = (values - values.mean(-1, keepdims=True) for values in (logits, expected))
    norms = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return float(((one * other).sum(-1) / norms).mean())


def compare_with_torch(checkpoint: Checkpoint, path: Path, cache: CacheInfo, ids: list[int], *, exact: bool) -> Parity:
    """Compare an imported graph with the model that it was made of.

    Args:
        checkpoint: the model.
        path: of the imported graph.
        cache: what it keeps.
        ids: a text.
        exact: whether the graph computes in float32 throughout, and so must match.

    Raises:
        ExportError: it is another model's, or does not match.
    """
    runner = decoder_runner(path, cache, usable_cores())
    expected = reference_logits(checkpoint.model, ids)
    runner.start(1, 1)
    [given] = runner.feed(np.array([ids[:1]]), np.zeros((1, 1), np.int64))[0].shape[-1:]
    if given != expected.shape[1]:
        raise ExportError(f"{checkpoint.source.name} is another model: it has {expected.shape[1]} tokens, not {given}")
    parity = decoder_parity(runner, expected, ids)
    if exact:
        check_exact(parity, f"the graph does not compute what {checkpoint.source.name} does")
        return parity
    quantized = quantized_decoder_parity(lambda _: expected, runner, ids, len(ids))
    return dataclasses.replace(parity, quantized=quantized)


def check_exact(parity: Parity, reason: str) -> None:
    """Check that graphs match PyTorch in each of the four ways of a decoder.

    Args:
        parity: of the graphs.
        reason: what it means if they do not, the beginning of a sentence.

    Raises:
        ExportError: they do not, or a difference is no number.
    """
    worst = worst_difference(parity)
    # Written so that NaN fails.
    if not worst <= parity.tolerance:
        raise ExportError(
            f"{reason} in PyTorch: logits differ by {worst:.2g} (allowed {parity.tolerance:.2g}); without "
            f"{option('against')} the model is imported as it is"
        )
