"""Checks that a manifest's description of the model agrees with the tensors that it lists for the graphs.

`runtime/graphs` compares those tensors with the graphs themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from triform.runtime.bundle.limits.contract import Limit
from triform.runtime.bundle.manifest import (
    PROMPTS,
    EncoderDecoderInfo,
    EncoderInfo,
    GraphInfo,
    Manifest,
    TensorInfo,
)
from triform.runtime.bundle.media_info import AudioInfo, ImageInfo, PatchesInfo
from triform.runtime.printable import quoted

# The graphs of a form, besides the one for images of models that compare images with texts.
_GRAPHS = {"decoder": ("decoder",), "encoder": ("encoder",), "encoder-decoder": ("encoder", "decoder")}
_TEXT_INPUTS = {"input_ids", "attention_mask", "token_type_ids", "prompt_lengths", "logits_positions", "bbox"}
# The outputs that a task needs, by graph.
_NEEDED: dict[str, dict[str, tuple[str, ...]]] = {
    "text-classification": {"encoder": ("logits",)},
    "token-classification": {"encoder": ("logits",)},
    "fill-mask": {"encoder": ("logits",)},
    "next-sentence-prediction": {"encoder": ("logits",)},
    "image-classification": {"encoder": ("logits",)},
    "audio-classification": {"encoder": ("logits",)},
    "automatic-speech-recognition": {"encoder": ("logits",)},
    "question-answering": {"encoder": ("start_logits", "end_logits")},
    "image-feature-extraction": {"encoder": ("image_embedding",)},
    "zero-shot-image-classification": {"encoder": ("sentence_embedding",), "image": ("image_embedding",)},
}
# The inputs of a graph that reads images; all but the first are for patches.
_IMAGE_INPUTS = {"pixel_values", "pixel_attention_mask", "spatial_shapes"}
# The input of an encoder for each kind of audio.
_audio = {
    "log_mel": ("input_features",),
    "fbank": ("input_features", "input_values"),
    "mel": ("input_features",),
    "mel_deltas": ("input_features",),
    "waveform": ("input_values",),
}


def disagreements(manifest: Manifest) -> Iterator[str]:
    """Yield a short message for each disagreement, which begins with a key.

    Args:
        manifest: with all values in range.
    """
    for limit in _claims(manifest):
        if not limit.fits:
            yield f"{limit.key} must be {limit.allowed}, not {quoted(limit.value)}"


def _claims(manifest: Manifest) -> Iterator[Limit]:
    contrast = manifest.encoder is not None and manifest.encoder.contrast is not None
    needed = {*_GRAPHS.get(manifest.form, ()), *(("image",) if contrast else ())}
    names = set(manifest.graphs) - ({PROMPTS} if manifest.form == "decoder" and manifest.target == "cpu" else set())
    yield Limit("graphs", sorted(names), needed == names or manifest.form not in _GRAPHS, f"{sorted(needed)}")
    if needed != names:
        return
    if PROMPTS in manifest.graphs:
        yield from _prompts(manifest)
    if manifest.encoder is not None:
        yield from _encoder(manifest, manifest.encoder)
    if manifest.encoder_decoder is not None:
        yield from _encoder_decoder(manifest, manifest.encoder_decoder)


def _prompts(manifest: Manifest) -> Iterator[Limit]:
    own, of_prompts = manifest.graphs["decoder"], manifest.graphs[PROMPTS]
    for side in ("inputs", "outputs"):
        tensors = getattr(of_prompts, side)
        names = [tensor.name for tensor in tensors]
        yield Limit(f"graphs.{PROMPTS}.{side}", names, tensors == getattr(own, side), "those of the graph decoder")


def _encoder(manifest: Manifest, info: EncoderInfo) -> Iterator[Limit]:
    writes = manifest.task == "automatic-speech-recognition"
    yield Limit(
        "encoder.ctc",
        info.ctc is not None,
        (info.ctc is not None) == writes,
        "given for speech recognition, and only there",
    )
    hears = writes or manifest.task == "audio-classification"
    yield Limit("encoder.audio", info.audio is not None, (info.audio is not None) == hears, f"as {manifest.task} needs")
    tokens = manifest.tokenizer is not None
    yield Limit(
        "tokenizer", tokens, tokens == writes or info.audio is None, "given for a model that writes, and only there"
    )
    for graph, names in _NEEDED.get(manifest.task, {}).items():
        listed = [tensor.name for tensor in _outputs(manifest, graph)]
        for name in names:
            yield Limit(f"graphs.{graph}.outputs", listed, name in listed, f"such that {name} is among them")
    for graph in manifest.graphs:
        inputs = {tensor.name for tensor in manifest.graphs[graph].inputs}
        if info.audio is not None:
            yield from _sound(manifest.graphs[graph], info.audio, "encoder.audio")
            continue
        known = _IMAGE_INPUTS if graph == "image" or manifest.tokenizer is None else _TEXT_INPUTS
        yield Limit(f"graphs.{graph}.inputs", sorted(inputs), inputs <= known, f"among {', '.join(sorted(known))}")
    yield from _vectors(manifest, info)
    yield from _logits(manifest, info)
    yield from _rows(manifest, info)
    yield from _boxes(manifest, info)
    with_images = [
        graph for graph in manifest.graphs.values() if any(tensor.name == "pixel_values" for tensor in graph.inputs)
    ]
    present = info.image is not None
    yield Limit(
        "encoder.image",
        present,
        present == bool(with_images),
        "given where a graph takes pixel_values, and only there",
    )
    if info.image is not None:
        for graph_info in with_images:
            yield from _pixels(graph_info, info.image, "encoder.image")


def _vectors(manifest: Manifest, info: EncoderInfo) -> Iterator[Limit]:
    tensors = [tensor for graph in manifest.graphs for tensor in _outputs(manifest, graph)]
    for tensor in tensors:
        if tensor.name in ("sentence_embedding", "image_embedding"):
            dimension = None if info.embedding is None else info.embedding.dimension
            yield Limit(
                "encoder.embedding.dimension", dimension, tensor.shape[1:] == [dimension], _as(tensor, tensor.shape[1:])
            )
    hidden = sorted(tensor.name for tensor in tensors if tensor.name.startswith("hidden_states."))
    expected = sorted(f"hidden_states.{index}" for index in range(info.hidden_states))
    yield Limit(
        "encoder.hidden_states", info.hidden_states, hidden == expected, f"{len(hidden)}, as many as graphs give"
    )


def _logits(manifest: Manifest, info: EncoderInfo) -> Iterator[Limit]:
    for tensor in _outputs(manifest, "encoder"):
        if tensor.name != "logits":
            continue
        width = tensor.shape[-1:]
        if manifest.task == "fill-mask" or info.ctc is not None:
            yield Limit("vocab_size", manifest.vocab_size, width == [manifest.vocab_size], _as(tensor, width))
        elif manifest.task == "next-sentence-prediction":
            yield Limit("graphs.encoder.outputs", tensor.shape, width == [2], "such that logits has two columns")
        else:
            count = len(info.labels)
            yield Limit("encoder.labels", f"{count} labels", width == [count], f"as many as {_as(tensor, width)}")


def _rows(manifest: Manifest, info: EncoderInfo) -> Iterator[Limit]:
    """Rules for padding and batching of rows."""
    if manifest.tokenizer is None and info.audio is None:
        return
    inputs = {tensor.name for tensor in manifest.graphs["encoder"].inputs}
    masked = bool(inputs & {"attention_mask", "padding_mask"})
    fixed = info.audio is not None and info.audio.fixed
    unpadded = info.equal_lengths or fixed or (info.contrast is not None and info.contrast.text_length is not None)
    yield Limit("encoder.equal_lengths", info.equal_lengths, masked or unpadded, "true where nothing hides padding")
    if info.embedding is not None:
        counted = info.embedding.include_prompt
        fits = counted == ("prompt_lengths" not in inputs)
        expected = "false where the graph takes prompt_lengths, and only there"
        yield Limit("encoder.embedding.include_prompt", counted, fits, expected)
    masks = "logits_positions" in inputs
    yield Limit("task", manifest.task, masks == (manifest.task == "fill-mask"), "fill-mask with logits_positions")


def _boxes(manifest: Manifest, info: EncoderInfo) -> Iterator[Limit]:
    tensors = [tensor for tensor in manifest.graphs["encoder"].inputs if tensor.name == "bbox"]
    given = info.boxes is not None
    yield Limit("encoder.boxes", given, given == bool(tensors), "given where the graph takes bbox, and only there")
    if info.boxes is not None:
        for tensor in tensors:
            yield Limit("encoder.boxes", tensor.shape, tensor.shape[2:] == [4], "of four numbers a token")
            whole = tensor.dtype == "int64"
            yield Limit(
                "encoder.boxes.whole", info.boxes.whole, info.boxes.whole == whole, f"{whole} for {tensor.dtype}"
            )


def _encoder_decoder(manifest: Manifest, info: EncoderDecoderInfo) -> Iterator[Limit]:
    encoder = manifest.graphs["encoder"]
    if info.image is not None:
        yield from _pixels(encoder, info.image, "encoder_decoder.image")
    if info.audio is not None:
        yield from _sound(encoder, info.audio, "encoder_decoder.audio")
    if info.source == "text":
        inputs = [tensor.name for tensor in encoder.inputs]
        fits = set(inputs) <= {"input_ids", "attention_mask"}
        yield Limit("graphs.encoder.inputs", inputs, fits, "input_ids and attention_mask")
    if info.speech is not None:
        for tensor in _outputs(manifest, "decoder"):
            if tensor.name == "cross_attentions":
                count = len(info.speech.alignment_heads)
                expected = f"as many as {_as(tensor, tensor.shape[1:2])}"
                key = "encoder_decoder.speech.alignment_heads"
                yield Limit(key, f"{count} heads", tensor.shape[1:2] == [count], expected)


def _sound(graph: GraphInfo, info: AudioInfo, key: str) -> Iterator[Limit]:
    inputs = [tensor.name for tensor in graph.inputs]
    name = next((name for name in _audio[info.kind] if name in inputs), "")
    fits = bool(name) and set(inputs) <= {name, "attention_mask", "padding_mask"}
    yield Limit(f"{key}.kind", info.kind, fits, f"such that the encoder takes {inputs}")
    for tensor in graph.inputs:
        if tensor.name == name and info.kind == "log_mel":
            frames = (info.chunk_length or 0) * info.sampling_rate // info.hop_length
            yield Limit(f"{key}.feature_size", info.feature_size, _may_be(tensor, 1, info.feature_size), _as(tensor))
            expected = f"such that a chunk has the frames of {_as(tensor)}"
            yield Limit(f"{key}.hop_length", info.hop_length, _may_be(tensor, 2, frames), expected)
        elif tensor.name == name and info.kind != "waveform":
            yield Limit(f"{key}.feature_size", info.feature_size, _may_be(tensor, 2, info.width), _as(tensor))


def _pixels(graph: GraphInfo, info: ImageInfo, key: str) -> Iterator[Limit]:
    if info.patches is not None:
        yield from _patches(graph, info, info.patches, f"{key}.patches")
        return
    size = [info.channels, info.height, info.width]
    for tensor in graph.inputs:
        fits = tensor.name == "pixel_values" and tensor.shape[1:] == size
        yield Limit(f"{key}.height", size, fits, f"as in {_as(tensor)}")


def _patches(graph: GraphInfo, info: ImageInfo, patches: PatchesInfo, key: str) -> Iterator[Limit]:
    width = patches.size**2 * info.channels
    shapes = {"pixel_values": [patches.count, width], "pixel_attention_mask": [patches.count], "spatial_shapes": [2]}
    names = sorted(tensor.name for tensor in graph.inputs)
    yield Limit(
        key, names, names == sorted(_IMAGE_INPUTS), f"null, or the graph has {', '.join(sorted(_IMAGE_INPUTS))}"
    )
    for tensor in graph.inputs:
        size = shapes.get(tensor.name, [])
        yield Limit(f"{key}.count", size, tensor.shape[1:] == size, f"as in {_as(tensor)}")


def _may_be(tensor: TensorInfo, axis: int, size: int) -> bool:
    """Whether an axis has this size or is dynamic."""
    return len(tensor.shape) == 3 and (isinstance(tensor.shape[axis], str) or tensor.shape[axis] == size)


def _as(tensor: TensorInfo, sizes: Sequence[int | str] | None = None) -> str:
    shown = tensor.shape if sizes is None else sizes
    return f"{', '.join(map(str, shown))} as in {tensor.name}"


def _outputs(manifest: Manifest, graph: str) -> list[TensorInfo]:
    info = manifest.graphs.get(graph)
    return [] if info is None else info.outputs
