"""Exports an encoder-decoder: trace both graphs, fuse, verify, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers import PretrainedConfig

from triform.export.checkpoint import loading
from triform.export.checkpoint.processors import load_image_processor, load_original_tokenizer
from triform.export.checkpoint.quiet import quiet
from triform.export.checkpoint.source import Checkpoint, Source
from triform.export.describe.generation_defaults import defaults_left_out, generation_defaults
from triform.export.describe.manifest import VocabularyInfo, form_manifest, model_info, write_manifest
from triform.export.describe.normal_config import normal_config
from triform.export.describe.plan import Row, plan_rows, stored_as
from triform.export.describe.special_tokens import (
    decoder_start,
    forced_left_out,
    special_strings,
    speech_info,
    tokens_of,
)
from triform.export.forms.encoder_decoders.gpu import FloatPair, build_pair_for_gpu
from triform.export.forms.encoder_decoders.graph import DECODER_FILE, ENCODER_FILE, Graphs
from triform.export.forms.encoder_decoders.stored import (
    Calibration,
    store_quantized,
    write_floats_to_calibrate,
    write_floats_to_keep,
)
from triform.export.forms.encoder_decoders.words import listening_to
from triform.export.graph.fused import encoder_notes
from triform.export.graph.fusion import fuse
from triform.export.graph.tracing import quiet_torch, trace
from triform.export.options import ExportOptions
from triform.export.quantize.mixed.experts import check_has_no_experts
from triform.export.report import Clock, Report, finish
from triform.export.samples.sources import (
    Sources,
    audio_sources,
    encoder_config,
    example_inputs,
    image_sources,
    text_sources,
)
from triform.export.tokenization.seq2seq import save_tokenizers
from triform.export.tokenization.seq2seq_languages import languages_listed, task_prefixes
from triform.export.verify.encoder_decoder import (
    reference_answers,
    verify_encoder_decoder,
)
from triform.export.verify.longest_audio import no_longer_than_read
from triform.export.write import describe_graph, staged
from triform.models.architectures import media_read
from triform.models.attention.local_global import whole_attention_limit
from triform.models.encoder_decoder.graph import encoder_decoder_specs
from triform.models.encoder_decoder.kinds import Kind, encoder_decoder_kind
from triform.models.encoder_decoder.streams import unreached_positions
from triform.models.errors import UnsupportedModelError
from triform.runtime.bundle.manifest import (
    CacheInfo,
    EncoderDecoderInfo,
    GraphInfo,
    LayerCacheInfo,
    Manifest,
    Quantization,
)
from triform.runtime.bundle.targets import for_gpu
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import ExportError, InputError, UnsupportedError, option

# For models with relative positions, which set no limit.
_UNLIMITED = 1024


def plan(origin: Source, config: PretrainedConfig, options: ExportOptions) -> list[Row]:
    """The rows that describe what `export` would do, from the config alone."""
    kind, text = encoder_decoder_kind(config), config.get_text_config(decoder=True)
    details = [
        ("reads", kind.source),
        ("hidden size", str(normal_config(text).get("hidden_size", "?"))),
        ("vocabulary", str(text.vocab_size)),
        ("longest answer", f"{answer_limit(config, options)} tokens"),
    ]
    weights = stored_as(options.quantize)
    return plan_rows(origin.name, "encoder-decoder", kind.task, config.model_type, details, weights)


def load(origin: Source, config: PretrainedConfig, options: ExportOptions) -> Checkpoint:
    """Load the checkpoint with its language-model head, its tokenizer and, for images, its image processor.

    Raises:
        ExportError: see `loading.load_checkpoint`.
        InputError: the context length is beyond the model's.
    """
    answer_limit(config, options)
    kind = encoder_decoder_kind(config)
    checkpoint = loading.load_model(origin, config, kind.auto_class)
    if kind.source == "text" and media_read(config):
        checkpoint = loading.of_texts(checkpoint, "input_ids", "decoder_input_ids")
    tokenizer = load_original_tokenizer(origin)
    processor = load_image_processor(origin) if kind.source == "image" else None
    return dataclasses.replace(checkpoint, tokenizer=tokenizer, image_processor=processor)


def export(checkpoint: Checkpoint, bundle: Path, options: ExportOptions, clock: Clock) -> Report:
    """Turn a loaded encoder-decoder into a verified bundle.

    Raises:
        ExportError: the target cannot be used, or a graph does not match PyTorch.
        UnsupportedError: the architecture cannot be traced, or its tokenizer or preprocessing cannot be described; or
            there is a goal, and experts.
    """
    config = checkpoint.model.config
    kind, max_length = encoder_decoder_kind(config), answer_limit(config, options)
    alignment_heads = _alignment_heads(checkpoint, options)
    start = decoder_start(checkpoint)
    if start is None:
        raise ExportError(f"{checkpoint.source.name} does not say which token its decoder starts with")
    sources = sources_of(kind, checkpoint, options.calibrate)
    pad = tokens_of(checkpoint).pad or 0
    with staged(bundle, options.force) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with clock.step("reference"), quiet(), _refusals_named(checkpoint.source.name):
            reference = reference_answers(checkpoint.model, sources, start, max_length, pad)
        graphs = _fused(checkpoint, sources, max_length, alignment_heads, clock)
        if options.goals:
            # Before anything that takes long.
            check_has_no_experts(graphs.encoder, options)
            check_has_no_experts(graphs.decoder, options)
        cache = CacheInfo("float32", [LayerCacheInfo(item.num_key_value_heads, item.head_dim) for item in graphs.cache])
        quantized = options.quantize != "none"
        with clock.step("verify"):
            if quantized:
                floats = write_floats_to_calibrate(graphs, Path(scratch), cache)
            else:
                floats = write_floats_to_keep(graphs, folder if options.for_cpu else Path(scratch), cache)
            parity = verify_encoder_decoder(floats.runner, reference)
            sources = no_longer_than_read(sources, floats.runner.encoder)
        # Before quantization, because what the tokenizers take counts towards a target.
        info = encoder_decoder_info(checkpoint, kind, sources, folder, start)
        gpu, gpu_parity = None, parity
        if options.for_gpu:
            with clock.step("build for GPUs"):
                pair = FloatPair(checkpoint.source.name, graphs, cache, floats.runner, reference)
                gpu, gpu_parity = build_pair_for_gpu(pair, options, folder, Path(scratch))
        quantization = (Quantization("none"), Quantization("none"))
        if quantized and options.for_cpu:
            listening = None
            if options.max_loss is not None:
                described = encoder_decoder_manifest(checkpoint, kind, {}, cache, max_length, info)
                listening = listening_to(described, folder)
            calibration = Calibration(checkpoint, sources, reference, max_length, listening)
            quantization, of_quantized = store_quantized(graphs, floats, calibration, options, folder, cache, clock)
            parity = dataclasses.replace(parity, quantized=of_quantized)
        with clock.step("write"):
            infos = _describe_graphs(graphs, folder, quantization) if options.for_cpu else {}
            manifest = dataclasses.replace(
                encoder_decoder_manifest(checkpoint, kind, infos, cache, max_length, info), gpu=gpu
            )
            if not options.for_cpu:
                manifest, parity = for_gpu(manifest), gpu_parity
            write_manifest(manifest, folder, parity, clock)
    return finish(bundle, checkpoint.weights_size, parity, clock)


def _describe_graphs(
    graphs: Graphs, folder: Path, quantization: tuple[Quantization, Quantization]
) -> dict[str, GraphInfo]:
    notes = encoder_notes(graphs.encoder)
    return {
        "encoder": describe_graph(graphs.encoder, folder / ENCODER_FILE, quantization[0], notes),
        "decoder": describe_graph(graphs.decoder, folder / DECODER_FILE, quantization[1], {}),
    }


def sources_of(kind: Kind, checkpoint: Checkpoint, calibrate: Sequence[str] = ()) -> Sources:
    """Sample sources for the encoder of a loaded checkpoint, those for calibration from the files named, if any.

    Errors as `text_sources`, `audio_sources` and `image_sources`.
    """
    if kind.source == "audio":
        return audio_sources(checkpoint, calibrate)
    if kind.source == "image":
        if calibrate:
            raise InputError(f"{option('calibrate')} is for models that read texts or hear; this one reads images")
        return image_sources(checkpoint)
    return text_sources(checkpoint, source_limit(checkpoint), calibrate)


def _alignment_heads(checkpoint: Checkpoint, options: ExportOptions) -> list[tuple[int, int]]:
    """The cross-attention heads for word timestamps, (layer, head), sorted; none unless they are exported.

    Raises:
        InputError: the model does not name them.
    """
    if not options.word_timestamps:
        return []
    speech = speech_info(checkpoint)
    if speech is None or not speech.alignment_heads:
        raise InputError(
            f"{option('word_timestamps')} needs alignment_heads in generation_config.json; "
            f"{checkpoint.source.name} has none"
        )
    return sorted((layer, head) for layer, head in speech.alignment_heads)


def _fused(
    checkpoint: Checkpoint,
    sources: Sources,
    max_length: int,
    alignment_heads: list[tuple[int, int]],
    clock: Clock,
) -> Graphs:
    with _refusals_named(checkpoint.source.name):
        with clock.step("trace"), quiet_torch():
            example = example_inputs(sources, checkpoint.model.generation_config.pad_token_id or 0)
            specs, prepared = encoder_decoder_specs(checkpoint.model, example, max_length, alignment_heads)
            with prepared:
                encoder, decoder = trace(specs.encoder), trace(specs.decoder)
        with clock.step("fuse"), quiet_torch():
            fuse(encoder)
            fuse(decoder)
    return Graphs(encoder, decoder, specs.decoder.cache)


@contextmanager
def _refusals_named(name: str) -> Iterator[None]:
    """Say which checkpoint it is that the models' code refuses."""
    try:
        yield
    except UnsupportedModelError as error:
        raise UnsupportedError(f"{name} cannot be exported: {error}") from error


def answer_limit(config: PretrainedConfig, options: ExportOptions) -> int:
    """Most tokens of an answer, including the one that decoding starts with.

    Raises:
        InputError: the user asks for more than the model's own limit.
    """
    text = config.get_text_config(decoder=True)
    # LED has a limit for each of its halves.
    names = ("max_target_positions", "max_decoder_position_embeddings")
    own = next((limit for limit in (getattr(config, name, None) for name in names) if limit), None)
    own = own or getattr(text, "max_position_embeddings", None)
    if own is not None:
        own -= unreached_positions(text)
    context_length = options.context_length
    if own is not None and context_length is not None and context_length > own:
        raise InputError(f"{option('context_length')} {context_length} is more than the model's own limit of {own}")
    return int(context_length or own or _UNLIMITED)


def source_limit(checkpoint: Checkpoint) -> int | None:
    """Most tokens of a source text; None when neither the model nor its tokenizer sets a limit."""
    config = encoder_config(checkpoint.model.config)
    names = ("max_encoder_position_embeddings", "max_position_embeddings")
    limits = [whole_attention_limit(config), *(getattr(config, name, None) for name in names)]
    own = next((limit for limit in limits if limit is not None), None)
    limit = checkpoint.tokenizer.model_max_length
    if own is not None:
        return int(min(own, limit))
    # Tokenizers without a limit have a very large one.
    return int(limit) if limit < 1e9 else None


def encoder_decoder_info(
    checkpoint: Checkpoint, kind: Kind, sources: Sources, folder: Path, start: int
) -> EncoderDecoderInfo:
    """Write the tokenizers, and describe what the model reads.

    Args:
        checkpoint: with its tokenizer; its weights are not read.
        kind: of the model.
        sources: say how audio or images are read.
        folder: to write to.
        start: the token that decoding starts with.

    Raises:
        ExportError: see `save_tokenizers`.
    """
    text = save_tokenizers(checkpoint.tokenizer, folder, checkpoint.source.name)
    languages = languages_listed(checkpoint.model.generation_config)
    return EncoderDecoderInfo(
        source=kind.source,
        decoder_start=start,
        max_source_length=source_limit(checkpoint) if kind.source == "text" else None,
        text=text if languages is None else dataclasses.replace(text, languages=languages),
        tasks=task_prefixes(checkpoint.model.config),
        audio=sources.audio,
        image=sources.image,
        speech=speech_info(checkpoint) if kind.source == "audio" else None,
    )


def encoder_decoder_manifest(
    checkpoint: Checkpoint,
    kind: Kind,
    graphs: dict[str, GraphInfo],
    cache: CacheInfo,
    max_length: int,
    info: EncoderDecoderInfo,
) -> Manifest:
    """The manifest of a bundle, to be completed by `write_manifest`; of the model, no weights are read."""
    model = checkpoint.model
    vocabulary = VocabularyInfo(
        tokenizer=TokenizerInfo(
            "tokenizer.json",
            None,
            special_strings(checkpoint.tokenizer),
            truncation_side=checkpoint.tokenizer.truncation_side,
        ),
        tokens=tokens_of(checkpoint),
        size=int(model.config.get_text_config(decoder=True).vocab_size),
        max_length=max_length,
    )
    manifest = form_manifest(model_info(checkpoint, "encoder-decoder", kind.task), vocabulary, graphs)
    left_out = defaults_left_out(model.generation_config, has_source=True)
    if info.speech is not None:
        left_out += forced_left_out(checkpoint, info.speech)
    return dataclasses.replace(
        manifest,
        cache=cache,
        generation=generation_defaults(model.generation_config),
        export=dataclasses.replace(manifest.export, notes=left_out),
        encoder_decoder=info,
    )
