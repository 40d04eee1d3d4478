"""Checks that a graph has the inputs and outputs that the manifest describes and that the runtime binds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from triform.runtime.bundle.manifest import CacheInfo, Manifest
from triform.runtime.errors import BundleError
from triform.runtime.graphs.binding import NEW_LENGTHS
from triform.runtime.graphs.protocols import GraphSession, Node

# The decoder output from which word timestamps are computed: (batch, heads, sequence, source).
CROSS_ATTENTIONS = "cross_attentions"
# An output of decoders exported with hidden states: (batch, sequence, hidden_size).
LAST_HIDDEN_STATE = "last_hidden_state"
# By dtype, as ONNX Runtime names them.
_TYPES = {"float32": "tensor(float)", "float16": "tensor(float16)", "bfloat16": "tensor(bfloat16)"}


@dataclass(frozen=True)
class _Tensor:
    """A tensor's type, as ONNX Runtime names it, and its sizes; a size that is not an int is open."""

    type: str
    sizes: Sequence[int | str | None]

    @property
    def shape(self) -> str:
        return f"({', '.join(str(size) for size in self.sizes)})"


def check_decoder(session: GraphSession, manifest: Manifest, path: Path) -> CacheInfo:
    """Compare a decoder graph with its manifest, so that no array of a wrong shape is ever bound.

    Returns:
        the manifest's cache.

    Raises:
        BundleError: the manifest has no cache, or a tensor is missing, unknown, or of another dtype or size.
    """
    return _check_decoder(session, manifest, path, {})


def check_decoder_of(encoder: GraphSession, decoder: GraphSession, manifest: Manifest, folder: Path) -> CacheInfo:
    """Like `check_decoder`, for a decoder that takes an encoder's outputs.

    Args:
        encoder: session of the encoder graph.
        decoder: session of the decoder graph.
        manifest: of the bundle.
        folder: of the bundle.
    """
    encoded = {node.name: _tensor(node) for node in encoder.get_outputs()}
    return _check_decoder(decoder, manifest, folder / "decoder.onnx", encoded)


def hidden_size_of(manifest: Manifest) -> int | None:
    """Return the size of a token's last hidden state; None if the decoder does not output it.

    Raises:
        BundleError: the manifest does not give the size.
    """
    graph = manifest.graphs.get("decoder")
    for info in graph.outputs if graph is not None else ():
        if info.name == LAST_HIDDEN_STATE:
            size = info.shape[-1] if info.shape else None
            if not isinstance(size, int):
                raise BundleError(f"the manifest does not say how long {LAST_HIDDEN_STATE} is; export the model again")
            return size
    return None


def _check_decoder(session: GraphSession, manifest: Manifest, path: Path, encoded: Mapping[str, _Tensor]) -> CacheInfo:
    if manifest.cache is None:
        raise BundleError(f"{path.parent} is a decoder without a cache; export the model again")
    own = _for_gpu if manifest.target == "gpu" else _for_cpu
    inputs, outputs = own(session, manifest.vocab_size)
    inputs |= encoded
    kind = _TYPES[manifest.cache.dtype]
    for index, layer in enumerate(manifest.cache.layers):
        buffer = _Tensor(kind, ["batch", layer.num_key_value_heads, "capacity", layer.head_dim])
        for part in ("key", "value"):
            inputs[f"past_key_values.{index}.{part}"] = buffer
            outputs[f"present.{index}.{part}"] = buffer
    if manifest.cache.states:
        inputs[NEW_LENGTHS] = _Tensor("tensor(int32)", ["batch"])
    for index, state in enumerate(manifest.cache.states):
        inputs[f"past_states.{index}"] = outputs[f"present_states.{index}"] = _floats("batch", *state.shape)
    hidden_size = hidden_size_of(manifest)
    if hidden_size is not None:
        outputs[LAST_HIDDEN_STATE] = _floats("batch", "sequence", hidden_size)
    if any(node.name == CROSS_ATTENTIONS for node in session.get_outputs()):
        outputs[CROSS_ATTENTIONS] = _floats("batch", "heads", "sequence", "source")
    _compare(session, inputs, outputs, path)
    return manifest.cache


def _for_cpu(_: GraphSession, vocab_size: int) -> tuple[dict[str, _Tensor], dict[str, _Tensor]]:
    """The inputs and outputs of every graph for the CPU."""
    inputs = {
        "input_ids": _Tensor("tensor(int64)", ["batch", "sequence"]),
        "past_lengths": _Tensor("tensor(int32)", ["batch"]),
        "logits_positions": _Tensor("tensor(int64)", ["batch", "num_logits"]),
    }
    return inputs, {"logits": _floats("batch", "num_logits", vocab_size)}


def _for_gpu(session: GraphSession, vocab_size: int) -> tuple[dict[str, _Tensor], dict[str, _Tensor]]:
    """The inputs and outputs of every graph for GPUs."""
    inputs = {
        "input_ids": _Tensor("tensor(int64)", ["batch", "sequence"]),
        "seqlens_k": _Tensor("tensor(int32)", ["batch"]),
        "total_sequence_length": _Tensor("tensor(int32)", [1]),
        "logits_rows": _Tensor("tensor(int64)", ["num_logits"]),
    }
    if any(node.name == "past_lengths" for node in session.get_inputs()):
        # Models that count positions take it.
        inputs["past_lengths"] = _Tensor("tensor(int32)", ["batch"])
    outputs = {
        "logits": _floats("num_logits", 1, vocab_size),
        "next_ids": _Tensor("tensor(int64)", ["num_logits", 1]),
    }
    return inputs, outputs


def _floats(*sizes: int | str) -> _Tensor:
    return _Tensor("tensor(float)", sizes)


def _tensor(node: Node) -> _Tensor:
    return _Tensor(node.type, node.shape)


def _compare(session: GraphSession, inputs: Mapping[str, _Tensor], outputs: Mapping[str, _Tensor], path: Path) -> None:
    for expected, nodes in ((inputs, session.get_inputs()), (outputs, session.get_outputs())):
        difference = _difference(expected, {node.name: _tensor(node) for node in nodes})
        if difference is not None:
            raise BundleError(f"{path} does not match its manifest: {difference}; export the model again")


def _difference(listed: Mapping[str, _Tensor], actual: Mapping[str, _Tensor]) -> str | None:
    for name in sorted(listed.keys() ^ actual.keys()):
        return f"{name} is {'missing' if name in listed else 'unknown'}"
    for name, tensor in actual.items():
        expected = listed[name]
        if tensor.type != expected.type:
            return f"{name} is a {tensor.type}, not a {expected.type}"
        if not _fits(tensor.sizes, expected.sizes):
            return f"{name} has the shape {tensor.shape}, not {expected.shape}"
    return None


def _fits(sizes: Sequence[int | str | None], expected: Sequence[int | str | None]) -> bool:
    """Whether sizes agree. The graph or the manifest may leave a size open, so only two numbers can disagree."""
    return len(sizes) == len(expected) and all(
        not (isinstance(size, int) and isinstance(other, int)) or size == other
        for size, other in zip(sizes, expected, strict=True)
    )
