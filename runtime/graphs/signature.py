"""Does a graph have the inputs and outputs that the manifest promises and the runtime will bind?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from triform.runtime.bundle.manifest import CacheInfo, Manifest
from triform.runtime.errors import BundleError

# What a decoder gives besides where words are to be found in the sound: (batch, heads, sequence, source).
CROSS_ATTENTIONS = "cross_attentions"
# What a decoder exported with hidden states gives besides, of every token: (batch, sequence, hidden_size).
LAST_HIDDEN_STATE = "last_hidden_state"
# dtype and sizes; None is a dynamic axis.
_Tensor = tuple[str, list[int | None]]


def check_decoder(session: Any, manifest: Manifest, path: Path) -> CacheInfo:
    """Compare a decoder graph with its manifest, so that nothing of a wrong shape is ever bound.

    Returns:
        the manifest's cache, which a decoder has.

    Raises:
        BundleError: the manifest has no cache, or a tensor is missing, unknown, or of another dtype or size.
    """
    return _check(session, manifest, path, {})


def hidden_size_of(manifest: Manifest) -> int | None:
    """Numbers of a token's last hidden state; None where the decoder does not give them."""
    graph = manifest.graphs.get("decoder")
    shapes = [one.shape for one in graph.outputs if one.name == LAST_HIDDEN_STATE] if graph is not None else []
    return int(shapes[0][-1]) if shapes else None


def check_decoder_of(encoder: Any, decoder: Any, manifest: Manifest, folder: Path) -> CacheInfo:
    """As `check_decoder`, of a decoder that is given what an encoder gives.

    Args:
        encoder: onnxruntime.InferenceSession of the encoder graph.
        decoder: that of the decoder graph.
        manifest: the bundle's.
        folder: the bundle's.
    """
    given = {
        node.name: (node.type.removeprefix("tensor(").removesuffix(")"), [_size(size) for size in node.shape])
        for node in encoder.get_outputs()
    }
    return _check(decoder, manifest, folder / "decoder.onnx", given)


def _size(size: int | str | None) -> int | None:
    return size if isinstance(size, int) else None


def _check(session: Any, manifest: Manifest, path: Path, given: dict[str, _Tensor]) -> CacheInfo:
    if manifest.cache is None:
        raise BundleError(f"{path.parent} is a decoder without a cache; export the model again")
    inputs: dict[str, _Tensor] = {
        "input_ids": ("int64", [None, None]),
        "past_lengths": ("int32", [None]),
        "logits_positions": ("int64", [None, None]),
        **given,
    }
    outputs: dict[str, _Tensor] = {"logits": ("float", [None, None, manifest.vocab_size])}
    for index, layer in enumerate(manifest.cache.layers):
        buffer: _Tensor = ("float", [None, layer.num_key_value_heads, None, layer.head_dim])
        for part in ("key", "value"):
            inputs[f"past_key_values.{index}.{part}"] = buffer
            outputs[f"present.{index}.{part}"] = buffer
    hidden_size = hidden_size_of(manifest)
    if hidden_size is not None:
        outputs[LAST_HIDDEN_STATE] = ("float", [None, None, hidden_size])
    if any(node.name == CROSS_ATTENTIONS for node in session.get_outputs()):
        outputs[CROSS_ATTENTIONS] = ("float", [None, None, None, None])
    for wanted, found in ((inputs, session.get_inputs()), (outputs, session.get_outputs())):
        difference = _difference(wanted, found)
        if difference is not None:
            raise BundleError(f"{path} does not match its manifest: {difference}; export the model again")
    return manifest.cache


def _difference(wanted: dict[str, _Tensor], found: list[Any]) -> str | None:
    names = {node.name for node in found}
    odd = sorted(names.symmetric_difference(wanted))
    if odd:
        return f"{odd[0]} is {'missing' if odd[0] in wanted else 'unknown'}"
    for node in found:
        dtype, sizes = wanted[node.name]
        if node.type != f"tensor({dtype})":
            return f"{node.name} is a {node.type}, not a tensor({dtype})"
        # A graph may leave a size open that the manifest knows, or the other way round; only two numbers can disagree.
        fits = len(node.shape) == len(sizes) and all(
            size is None or not isinstance(there, int) or there == size
            for there, size in zip(node.shape, sizes, strict=True)
        )
        if not fits:
            return f"{node.name} has the shape {node.shape}"
    return None
