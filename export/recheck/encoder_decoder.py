"""Compares an encoder-decoder's bundle with its source."""

from __future__ import annotations

import dataclasses

from transformers import PretrainedConfig

from triform.export.checkpoint.source import Source
from triform.export.concatenated_runner import decoder_runner
from triform.export.describe.special_tokens import tokens_of
from triform.export.forms import encoder_decoder
from triform.export.gpu.twin import allowed_error
from triform.export.graph.tracing import quiet_torch
from triform.export.options import ExportOptions
from triform.export.recheck.agreement import check_as_recorded, check_float_bundle
from triform.export.runners import EncoderDecoderRunner, EncoderRunner, GpuDecoderRunner, usable_cores
from triform.export.verify.encoder_decoder import (
    TorchDecoder,
    encoder_decoder_parity,
    quantized_encoder_decoder_parity,
    reference_answers,
)
from triform.export.verify.half import check_half, in_half
from triform.models.encoder_decoder.kinds import encoder_decoder_kind
from triform.runtime.bundle.export_record import Parity
from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import CacheInfo
from triform.runtime.errors import ExportError


def recheck_encoder_decoder(bundle: Bundle, origin: Source, config: PretrainedConfig) -> Parity:
    """Compare an encoder-decoder's bundle with its source; see `verify_against`."""
    manifest, info = bundle.manifest, bundle.manifest.encoder_decoder
    if info is None:
        raise ExportError(f"{bundle.folder} does not say what it reads; export the model again")
    checkpoint = encoder_decoder.load(origin, config, ExportOptions(context_length=manifest.max_length))
    with quiet_torch():
        sources = encoder_decoder.sources_of(encoder_decoder_kind(config), checkpoint)
    if (sources.audio, sources.image) != (info.audio, info.image):
        raise ExportError(f"{origin.name} makes other inputs of audio or images than {bundle.folder} does")
    model, pad = checkpoint.model, tokens_of(checkpoint).pad or 0
    reference = reference_answers(model, sources, info.decoder_start, manifest.max_length, pad)
    cache = manifest.cache or CacheInfo("float32", [])
    (encoder, _), (decoder, graph) = bundle.graph("encoder"), bundle.graph("decoder")
    cores = usable_cores()
    if manifest.target == "gpu":
        for_gpu = EncoderDecoderRunner(EncoderRunner(encoder, cores), GpuDecoderRunner(decoder, cache, cores))
        count = sum(sum(info.operators.values()) for info in manifest.graphs.values())
        halved = in_half(encoder_decoder_parity(for_gpu, reference), allowed_error(count, "float16"))
        check_half(halved, cache.dtype, quantized=graph.quantization.scheme != "none")
        return halved
    runner = EncoderDecoderRunner(EncoderRunner(encoder, cores), decoder_runner(decoder, cache, cores))
    parity = encoder_decoder_parity(runner, reference)
    if graph.quantization.scheme == "none":
        check_float_bundle(parity, bundle, origin.name)
        return parity
    quantized = quantized_encoder_decoder_parity(lambda arrays: TorchDecoder(model, arrays), runner, reference)
    check_as_recorded(quantized, bundle, origin.name)
    return dataclasses.replace(parity, quantized=quantized)
