"""Runs the exported graphs with ONNX Runtime, to verify, calibrate and measure them.

The runtime's own loop is not used on purpose: what verifies a graph should not share its mistakes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from triform.export.samples.batches import Array
from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.errors import ExportError
from triform.runtime.graphs.exact_products import make_products_exact
from triform.runtime.graphs.packed_weights import add_unpacked, unpacked_weights
from triform.runtime.graphs.session import SLOW_FUSIONS

# Begins the names of the extra outputs of a graph that is calibrated; see `quantize/activations.py`.
ACTIVATION_PREFIX = "activation."
# The second axis of outputs that have as much of it as a row's input.
_RAGGED = (["sequence"], ["frames"])


class FedDecoder(Protocol):
    """A decoder that is fed chunks of token ids; the methods are those of `DecoderRunner`."""

    def start(self, batch: int, capacity: int) -> None:
        """Empty the cache."""

    def feed(self, input_ids: Array, positions: Array) -> tuple[Array, dict[str, Array]]:
        """Run one chunk."""


class RaggedDecoder(FedDecoder, Protocol):
    """A decoder whose rows may be of different lengths.

    Attributes:
        lengths: int32 (batch,), tokens in each row's cache.
    """

    lengths: Array

    def feed(self, input_ids: Array, positions: Array, lengths: Array | None = None) -> tuple[Array, dict[str, Array]]:
        """Run one chunk; see `DecoderRunner`."""


class SourcedDecoder(RaggedDecoder, Protocol):
    """A decoder that may answer sources.

    Attributes:
        encoder_outputs: see `DecoderRunner`.
    """

    encoder_outputs: dict[str, Array]


# Logits, and the outputs besides logits and cache by name.
Result = tuple[Array, dict[str, Array]]


@dataclass(frozen=True)
class Chunk:
    """What a decoder is fed in one run; see `DecoderRunner.feed`.

    Attributes:
        input_ids: int64 (batch, sequence).
        positions: int64 (batch, num_logits).
        lengths: int32 (batch,), or None.
    """

    input_ids: Array
    positions: Array
    lengths: Array | None = None

    @property
    def new_lengths(self) -> Array:
        """Tokens of each row, int32 (batch,)."""
        batch, sequence = self.input_ids.shape
        return np.full(batch, sequence, np.int32) if self.lengths is None else self.lengths.astype(np.int32)

    def feeds(self, past_lengths: Array) -> dict[str, Array]:
        """A graph's inputs by name, but for the cache.

        Args:
            past_lengths: int32 (batch,), tokens in each row's cache.
        """
        return {
            "input_ids": self.input_ids.astype(np.int64),
            "past_lengths": past_lengths,
            "new_lengths": self.new_lengths,
            "logits_positions": self.positions.astype(np.int64),
        }


@dataclass(frozen=True)
class Feeding:
    """Texts that are fed to a decoder side by side, chunk by chunk, from an empty cache.

    Attributes:
        batch: how many texts.
        capacity: most tokens of a text.
        chunks: in order.
    """

    batch: int
    capacity: int
    chunks: tuple[Chunk, ...]


def fed(runner: FedDecoder | RaggedDecoder, feedings: Iterable[Feeding]) -> Iterator[Result]:
    """Feed a decoder; yields the results of each chunk, in order.

    Only a `RaggedDecoder` can be fed rows of different lengths.
    """
    feed: Callable[..., Result] = runner.feed
    for feeding in feedings:
        runner.start(feeding.batch, feeding.capacity)
        for chunk in feeding.chunks:
            yield feed(chunk.input_ids, chunk.positions, *([] if chunk.lengths is None else [chunk.lengths]))


def empty_cache(cache: CacheInfo, batch: int, capacity: int) -> dict[str, Array]:
    """An empty cache in float32, by names of the graph's inputs."""
    past: dict[str, Array] = {}
    for index, layer in enumerate(cache.layers):
        for part in ("key", "value"):
            shape = (batch, layer.num_key_value_heads, capacity, layer.head_dim)
            past[f"past_key_values.{index}.{part}"] = np.zeros(shape, np.float32)
    for index, state in enumerate(cache.states):
        past[f"past_states.{index}"] = np.zeros((batch, *state.shape), np.float32)
    return past


class DecoderRunner:
    """A decoder graph with a cache that grows as tokens are fed.

    Attributes:
        encoder_outputs: the graph's inputs that come from an encoder, by name; the same at each run.
        lengths: int32 (batch,), tokens in each row's cache.
        extra_outputs: names of the outputs other than logits and cache.
    """

    def __init__(self, path: Path, cache: CacheInfo, threads: int) -> None:
        """Open a graph.

        Args:
            path: of the graph.
            cache: what it keeps of a text.
            threads: to run on.
        """
        self._session = open_session_of(path, threads)
        self._cache = cache
        self.encoder_outputs: dict[str, Array] = {}
        self.extra_outputs = [
            output.name
            for output in self._session.get_outputs()
            if not output.name.startswith(("logits", "present.", "present_states."))
        ]
        self.start(1, 0)

    def start(self, batch: int, capacity: int) -> None:
        """Empty the cache and make room for `batch` rows of at most `capacity` tokens."""
        self._past = empty_cache(self._cache, batch, capacity)
        self.lengths: Array = np.zeros(batch, np.int32)

    def feed(self, input_ids: Array, positions: Array, lengths: Array | None = None) -> tuple[Array, dict[str, Array]]:
        """Run one chunk.

        Args:
            input_ids: int64 (batch, sequence).
            positions: int64 (batch, num_logits), the positions of the chunk to return logits for.
            lengths: int32 (batch,), real tokens of each row in the chunk; all of them when None.

        Returns:
            logits float32 (batch, num_logits, vocab_size), and the graph's outputs beyond the cache.
        """
        chunk = Chunk(input_ids, positions, lengths)
        feeds = {**chunk.feeds(self.lengths), **self._past, **self.encoder_outputs}
        if not self._cache.states:
            del feeds["new_lengths"]
        presents = {name: present_of(name) for name in self._past}
        names = ["logits", *self.extra_outputs, *presents.values()]
        results = dict(zip(names, run_session(self._session, names, feeds), strict=True))
        self._past = {past: results.pop(present) for past, present in presents.items()}
        self.lengths = self.lengths + chunk.new_lengths
        return results.pop("logits"), results


class GpuDecoderRunner:
    """A decoder graph for GPUs, run on the CPU; its methods are those of `DecoderRunner`.

    Attributes:
        encoder_outputs: see `DecoderRunner`.
        lengths: see `DecoderRunner`.
    """

    def __init__(self, path: Path, cache: CacheInfo, threads: int) -> None:
        self._session = open_session_of(path, threads)
        self._cache = cache
        self._taken = [value.name for value in self._session.get_inputs()]
        self.encoder_outputs: dict[str, Array] = {}
        self.start(1, 0)

    def start(self, batch: int, capacity: int) -> None:
        """See `DecoderRunner`."""
        types = {value.name: value.type for value in self._session.get_inputs()}
        self._past = {}
        for index, layer in enumerate(self._cache.layers):
            for name in (f"past_key_values.{index}.key", f"past_key_values.{index}.value"):
                kind = np.float16 if types[name] == "tensor(float16)" else np.float32
                self._past[name] = np.zeros((batch, layer.num_key_value_heads, capacity, layer.head_dim), kind)
        self.lengths: Array = np.zeros(batch, np.int32)

    def feed(self, input_ids: Array, positions: Array, lengths: Array | None = None) -> tuple[Array, dict[str, Array]]:
        """See `DecoderRunner`. Raises ExportError, too, where next_ids is not the likeliest token."""
        batch, sequence = input_ids.shape
        end = self.lengths + sequence
        new_lengths = np.full(batch, sequence, np.int32) if lengths is None else lengths.astype(np.int32)
        feeds = {
            "input_ids": input_ids.astype(np.int64),
            "past_lengths": self.lengths,
            "seqlens_k": (end - 1).astype(np.int32),
            "total_sequence_length": np.array([end.max()], np.int32),
            "logits_rows": (positions + np.arange(batch)[:, None] * sequence).astype(np.int64).ravel(),
            **self._past,
            **self.encoder_outputs,
        }
        presents = {name: present_of(name) for name in self._past}
        outputs = run_session(
            self._session,
            ["logits", "next_ids", *presents.values()],
            {name: value for name, value in feeds.items() if name in self._taken},
        )
        self._past = dict(zip(presents, outputs[2:], strict=True))
        self.lengths = self.lengths + new_lengths
        logits = outputs[0].reshape(*positions.shape, -1)
        if np.isfinite(logits).all() and (logits.argmax(-1).ravel() != outputs[1].ravel()).any():
            raise ExportError("the graph for GPUs does not choose the likeliest token; please report this model")
        return logits, {}


def present_of(past: str) -> str:
    """The output that a state comes out of, by the input that it goes into."""
    return past.replace("past_key_values", "present").replace("past_states", "present_states")


class EncoderRunner:
    """An encoder graph.

    Attributes:
        inputs: the type of each input as ONNX Runtime writes it, by name.
        shapes: of each input; a size that is not a number is open.
        outputs: names of all outputs.
        ragged: names of the outputs with an axis for tokens or frames, whose padded rows have more than the sample's.
    """

    def __init__(self, path: Path, threads: int) -> None:
        self._session = open_session_of(path, threads)
        self.inputs: dict[str, str] = {value.name: value.type for value in self._session.get_inputs()}
        self.shapes: dict[str, list[int | str]] = {value.name: value.shape for value in self._session.get_inputs()}
        self.outputs = [output.name for output in self._session.get_outputs()]
        self.ragged = {output.name for output in self._session.get_outputs() if output.shape[1:2] in _RAGGED}

    def run(self, arrays: Mapping[str, Array], names: Sequence[str] = ()) -> dict[str, Array]:
        """The outputs called `names`, by name; all outputs when `names` is empty."""
        outputs = list(names) or self.outputs
        return dict(zip(outputs, run_session(self._session, outputs, dict(arrays)), strict=True))


class EncoderDecoderRunner:
    """Both graphs of an encoder-decoder."""

    def __init__(self, encoder: EncoderRunner, decoder: SourcedDecoder) -> None:
        self.encoder, self.decoder = encoder, decoder

    def read(self, arrays: Mapping[str, Array]) -> SourcedDecoder:
        """Run the encoder on a batch of sources; returns the decoder, ready to answer them."""
        outputs = self.encoder.run(arrays)
        self.decoder.encoder_outputs = {
            name: value for name, value in outputs.items() if not name.startswith(ACTIVATION_PREFIX)
        }
        return self.decoder


def greedy_tokens(decoder: FedDecoder, start: int, count: int, ends: Container[int] = ()) -> list[int]:
    """The first `count` tokens of the greedy answer, beginning with `start`, up to one of `ends`."""
    decoder.start(1, count)
    ids = [start]
    while len(ids) < count:
        logits, _ = decoder.feed(np.array([ids[-1:]]), np.zeros((1, 1)))
        token = int(logits[0, 0].argmax())
        if token in ends:
            break
        ids.append(token)
    return ids


def usable_cores() -> int:
    """Cores, counting hyperthreads, that the operating system lets this process run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_session_of(path: Path, threads: int) -> ort.InferenceSession:
    """A session of a graph.

    Raises:
        ExportError: it cannot be opened.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    # Only what ends the process: other errors are raised, and reported once.
    options.log_severity_level = 4
    make_products_exact(options)
    weights = unpacked_weights(path)
    add_unpacked(ort, options, weights)
    try:
        return ort.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=SLOW_FUSIONS
        )
    except Exception as error:  # ONNX Runtime's errors have no base class of their own
        raise ExportError(f"ONNX Runtime cannot load the exported {path.name}: {_reason(error)}") from error


def run_session(session: ort.InferenceSession, names: Sequence[str], feeds: dict[str, Any]) -> list[Array]:
    """The outputs called `names`.

    Raises:
        ExportError: a node of the graph fails; names it and gives the reason.
    """
    try:
        outputs: list[Array] = session.run(names, feeds)
    except Exception as error:  # as above
        raise ExportError(f"ONNX Runtime cannot run the exported graph: {_reason(error)}") from error
    return outputs


def _reason(error: Exception) -> str:
    """An error of ONNX Runtime without its code, and with its node's name first."""
    text = " ".join(str(error).split())
    failed = re.search(r"while running (\w+) node\. Name:'([^']*)' Status Message: (.*)", text)
    if failed is not None:
        operator, name, message = failed.groups()
        # The message begins with the place in ONNX Runtime's sources where there is one.
        message = re.sub(r"^\S+:\d+ .*?\) (?=\S)", "", message)
        return f"{operator} node {name} fails: {message}; please report this model"
    return f"{re.sub(r'^.ONNXRuntimeError. : [0-9]+ : [A-Z_]+ : ', '', text)}; please report this model"
