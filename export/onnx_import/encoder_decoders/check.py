"""Runs the graphs of a bundle and those that they were made of side by side, in every way that they are used."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from triform.export.checkpoint.source import Checkpoint
from triform.export.concatenated_runner import ConcatenatedRunner
from triform.export.onnx_import.decoders.check import ARRAY_TYPES, check_exact
from triform.export.onnx_import.encoder_decoders.graph import NAMES
from triform.export.onnx_import.encoder_decoders.parts import Parts
from triform.export.runners import EncoderDecoderRunner, EncoderRunner, FedDecoder, usable_cores
from triform.export.samples.batches import Array, Sample, padded
from triform.export.samples.sources import Sources
from triform.export.verify.decoder import RELATIVE_TOLERANCE
from triform.export.verify.encoder_decoder import (
    TorchDecoder,
    encoder_decoder_parity,
    quantized_encoder_decoder_parity,
    reference_answers,
)
from triform.runtime.bundle.export_record import Parity
from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.errors import ExportError

# Tokens of an answer at least, and how it is read in chunks: each begins where the one before ended.
FEWEST = 16
_STEPS = 6
# Of the largest logit, where activations are rounded to 8 or 16 bits, and the last digits decide to what.
_ROUNDED = 0.02


class _Pair(Protocol):
    """Two graphs, or three."""

    def read(self, arrays: Mapping[str, Array]) -> FedDecoder:
        """Run the encoder on a batch of sources; returns the decoder, ready to answer them."""


class OriginalPair:
    """The graphs as they came. It reads sources as an `EncoderDecoderRunner`, and is fed as a `DecoderRunner`."""

    def __init__(self, parts: Parts) -> None:
        """Open the graphs.

        Raises:
            ExportError: one cannot be opened.
        """
        cores = usable_cores()
        self._encoder, self._first = EncoderRunner(parts.encoder, cores), EncoderRunner(parts.first, cores)
        self._past = self._first if parts.past == parts.first else EncoderRunner(parts.past, cores)
        self._source: dict[str, Array] = {}
        self.start(1, 0)

    def read(self, arrays: Mapping[str, Array]) -> OriginalPair:
        """Run the encoder on a batch of sources; returns this, ready to answer them."""
        runner = self._encoder
        outputs = runner.run({name: _typed(runner, name, array) for name, array in arrays.items()})
        self._source = {"encoder_hidden_states": outputs["last_hidden_state"]}
        if "attention_mask" in arrays:
            self._source["encoder_attention_mask"] = arrays["attention_mask"]
        self.start(1, 0)
        return self

    def start(self, batch: int, capacity: int) -> None:
        """Begin answers, as many as there are sources."""
        self._kept: dict[str, Array] = {}
        self._length = 0

    def feed(self, input_ids: Array, positions: Array) -> tuple[Array, dict[str, Array]]:
        """Run one chunk.

        Raises:
            ExportError: a graph cannot be run.
        """
        batch, count = input_ids.shape
        runner = self._past if self._length else self._first
        places = np.arange(self._length, self._length + count)
        values: dict[str, Any] = {
            **self._source,
            "input_ids": input_ids,
            "use_cache_branch": np.array([self._length > 0]),
            "decoder_attention_mask": np.ones((batch, self._length + count)),
            "position_ids": np.broadcast_to(places, (batch, count)),
            "cache_position": places,
        }
        values |= self._kept or _nothing(runner, batch)
        taken = {name: _typed(runner, name, values[name]) for name in runner.inputs if name in values}
        results = runner.run(taken)
        for name, array in results.items():
            past = name.replace("present", "past_key_values", 1)
            # Those of the source are given once; a merged graph gives something else later.
            if name != past and (".decoder." in name or not self._length):
                self._kept[past] = array
        self._length += count
        logits = results[NAMES.logits].astype(np.float32)
        return np.take_along_axis(logits, positions.astype(np.int64)[..., None], axis=1), {}


def _nothing(runner: EncoderRunner, batch: int) -> dict[str, Array]:
    """What a merged graph takes where there are no tokens before: keys and values of none."""
    return {
        name: np.zeros((batch, *(size if isinstance(size, int) else 0 for size in shape[1:])), np.float32)
        for name, shape in runner.shapes.items()
        if name.startswith("past_key_values.")
    }


def _typed(runner: EncoderRunner, name: str, array: Array) -> Array:
    return np.asarray(array, ARRAY_TYPES[runner.inputs[name]])


def open_pair(folder: Path, cache: CacheInfo) -> EncoderDecoderRunner:
    """The graphs of a bundle."""
    cores = usable_cores()
    decoder = ConcatenatedRunner(folder / "decoder.onnx", cache, cores)
    return EncoderDecoderRunner(EncoderRunner(folder / "encoder.onnx", cores), decoder)


def compare_pairs(
    original: OriginalPair,
    folder: Path,
    cache: CacheInfo,
    samples: Sequence[Sample],
    ids: list[int],
    pad: int,
    *,
    exact: bool,
) -> tuple[CacheInfo, float]:
    """Compare answers at once, in single steps, and in a batch of two with the original graphs.

    Args:
        original: the graphs as they came.
        folder: has those of the bundle.
        cache: what its decoder keeps.
        samples: sources, two at least.
        ids: tokens of an answer.
        pad: the token that pads.
        exact: whether the graphs compute in float32 throughout.

    Returns:
        the cache with what was found out, and if it is not exact, the largest difference between an answer at once and
        in steps, as a share of the largest logit.

    Raises:
        ExportError: the bundle's graphs compute something else.
    """
    sizes = _sizes(len(ids))
    known = {way: sizes[way] for way in ("at once", "in steps", "in a batch")}
    expected = _ways(original, samples, ids, pad, known)
    expected["in chunks"] = expected["at once"]
    scale = float(np.abs(expected["at once"]).max())
    allowed = (RELATIVE_TOLERANCE if exact else _ROUNDED) * scale
    # Where activations are rounded, chunks need not give what a whole answer does.
    compared = list(sizes if exact else known)
    found = _ways(open_pair(folder, cache), samples, ids, pad, {way: sizes[way] for way in compared})
    if not all(_near(found[way], expected[way], allowed) for way in compared if way != "in steps"):
        # Graphs made for single steps may not hide the tokens of a chunk from those before them.
        cache = dataclasses.replace(cache, single=True)
        found = _ways(open_pair(folder, cache), samples, ids, pad, known)
        if not exact:
            expected = _ways(original, samples, ids, pad, dict.fromkeys(known, [1] * len(ids)))
    for way, logits in found.items():
        if not _near(logits, expected[way], allowed):
            raise ExportError(
                "the imported graphs do not compute what those in the folder do together, or these are not of one "
                f"model: logits {way} differ by {np.abs(logits - expected[way]).max():.2g} (allowed {allowed:.2g}); "
                "export the checkpoint instead"
            )
    if exact and not _near(found["in a batch"][0], expected["at once"][0], allowed):
        raise ExportError(
            "these graphs give other logits for a text in a batch than for it alone, by "
            f"{np.abs(found['in a batch'][0] - expected['at once'][0]).max():.2g} (allowed {allowed:.2g}); export the "
            "model again with a newer version of the tool that made it"
        )
    worst = float(np.abs(found["at once"] - found["in steps"]).max()) / scale
    return cache, 0.0 if exact else worst


def _sizes(count: int) -> dict[str, list[int]]:
    """Tokens of each run of an answer, by the ways to read it."""
    third, stepped = count // 3, [count - _STEPS, *[1] * _STEPS]
    return {
        "at once": [count],
        "in steps": stepped,
        "in chunks": [third, third, count - 2 * third],
        "in a batch": stepped,
    }


def _ways(
    pair: _Pair, samples: Sequence[Sample], ids: list[int], pad: int, sizes: Mapping[str, list[int]]
) -> dict[str, Array]:
    """Logits of an answer in several ways, float32 (rows, len(ids), vocab_size)."""
    shortest = sorted(samples, key=lambda sample: len(next(iter(sample.values()))))[:2]
    alone = pair.read(padded(shortest[:1], pad))
    found = {way: _fed(alone, 1, ids, runs) for way, runs in sizes.items() if way != "in a batch"}
    return {**found, "in a batch": _fed(pair.read(padded(shortest, pad)), 2, ids, sizes["in a batch"])}


def _fed(decoder: FedDecoder, rows: int, ids: list[int], sizes: list[int]) -> Array:
    """Logits after each token, of as many rows of the same tokens."""
    decoder.start(rows, len(ids))
    done, logits = 0, []
    for size in sizes:
        chunk = np.array([ids[done : done + size]] * rows)
        logits.append(decoder.feed(chunk, np.arange(size)[None].repeat(rows, 0))[0])
        done += size
    return np.concatenate(logits, 1)


def _near(values: Array, expected: Array, allowed: float) -> bool:
    # Written so that NaN fails too.
    return bool((np.abs(values - expected) <= allowed).all())


def longest_answer(folder: Path, cache: CacheInfo, sample: Sample, pad: int, limit: int) -> int:
    """The most tokens of an answer that the graphs read: `limit`, or fewer where a table of positions ends before.

    Raises:
        ExportError: they read none.
    """
    decoder = ConcatenatedRunner(folder / "decoder.onnx", cache, usable_cores())
    decoder.encoder_outputs = EncoderRunner(folder / "encoder.onnx", usable_cores()).run(padded([sample], pad))

    def reaches(length: int) -> bool:
        decoder.start_behind(length - 1)
        try:
            decoder.feed(np.array([[1]]), np.zeros((1, 1), np.int64))
        except ExportError:
            return False
        return True

    if reaches(limit):
        return limit
    fits, fails = 1, limit
    if not reaches(fits):
        raise ExportError("the imported graphs cannot be run on a token")
    while fails - fits > 1:
        middle = (fits + fails) // 2
        fits, fails = (middle, fails) if reaches(middle) else (fits, middle)
    return fits


def compare_with_checkpoint(
    checkpoint: Checkpoint,
    sources: Sources,
    folder: Path,
    cache: CacheInfo,
    start: int,
    limit: int,
    pad: int,
    *,
    exact: bool,
) -> Parity:
    """Compare a bundle's graphs with the model that they were made of.

    Args:
        checkpoint: the model.
        sources: of the model.
        folder: has the graphs.
        cache: what the decoder keeps.
        start: the token that an answer begins with.
        limit: most tokens of an answer.
        pad: the token that pads.
        exact: whether the graphs compute in float32 throughout, and so must match.

    Raises:
        ExportError: they do not match.
    """
    reference = reference_answers(checkpoint.model, sources, start, limit, pad)
    pair = open_pair(folder, cache)
    parity = encoder_decoder_parity(pair, reference)
    if exact:
        check_exact(parity, f"the graphs do not compute what {checkpoint.source.name} does")
        return parity
    quantized = quantized_encoder_decoder_parity(lambda arrays: TorchDecoder(checkpoint.model, arrays), pair, reference)
    return dataclasses.replace(parity, quantized=quantized)
