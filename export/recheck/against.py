"""Compares a finished bundle with its source, for `triform verify --against`."""

from __future__ import annotations

import dataclasses

import transformers

from triform.export.checkpoint.loading import load_checkpoint, read_config
from triform.export.checkpoint.quiet import quiet
from triform.export.checkpoint.resolve import find_checkpoint
from triform.export.checkpoint.source import Checkpoint
from triform.export.concatenated_runner import decoder_runner
from triform.export.gpu.twin import allowed_error
from triform.export.recheck.agreement import check_as_recorded, check_float_bundle, check_prompts_as_recorded
from triform.export.recheck.encoder import recheck_encoder
from triform.export.recheck.encoder_decoder import recheck_encoder_decoder
from triform.export.runners import DecoderRunner, GpuDecoderRunner, RaggedDecoder, usable_cores
from triform.export.samples import texts
from triform.export.verify.decoder import (
    decoder_parity,
    quantized_decoder_parity,
    reference_logits,
    reference_states,
    verify_states,
)
from triform.export.verify.half import check_half, in_half
from triform.models.attention.rotary import fix_frequencies
from triform.models.decoder.hidden_states import LAST_HIDDEN_STATE
from triform.runtime.bundle.export_record import EncoderParity, Parity, QuantizedParity
from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import PROMPTS, CacheInfo, Manifest
from triform.runtime.bundle.targets import manifests
from triform.runtime.errors import ExportError

_TOKENS, _PARITY_TOKENS, _WINDOW = 1024, 192, 512


def verify_against(bundle: Bundle, source: str) -> Parity | EncoderParity:
    """Compare a bundle with the checkpoint it came from.

    A float bundle must match PyTorch's outputs; a quantized one must be as close to them as it was when it was made.
    Both targets of a bundle are compared, and the CPU's differences returned.

    Args:
        bundle: an opened bundle.
        source: a transformers folder, a GGUF file, word vectors or a hub id.

    Raises:
        ExportError: the source cannot be loaded, or is another than that of the bundle.
    """
    # transformers says what it cannot do for a model, which is not what is asked here.
    with quiet():
        return _verify(bundle, source)


def _verify(bundle: Bundle, source: str) -> Parity | EncoderParity:
    manifest = bundle.manifest
    origin = find_checkpoint(source)
    config = read_config(origin)
    if config.model_type != manifest.model_type or not _same_vocabulary(config, manifest):
        raise ExportError(f"{source} is not what {bundle.folder} was exported from: it is another architecture")
    if manifest.form == "encoder":
        return recheck_encoder(bundle, origin, config)
    targets = [dataclasses.replace(bundle, manifest=one_target) for one_target in manifests(manifest)]
    for one_target in targets:
        _check_runs_here(one_target)
    if manifest.form == "encoder-decoder":
        first, *_ = [recheck_encoder_decoder(one_target, origin, config) for one_target in targets]
        return first
    checkpoint = load_checkpoint(origin, config, transformers.AutoModelForCausalLM, as_stored=True)
    fix_frequencies(checkpoint.model, manifest.max_length)
    first, *_ = [_recheck_decoder(one_target, checkpoint, source) for one_target in targets]
    return first


def _check_runs_here(bundle: Bundle) -> None:
    cache = bundle.manifest.cache
    if cache is not None and cache.dtype == "bfloat16":
        path, _ = bundle.graph("decoder")
        raise ExportError(f"{path} computes with bfloat16, which the CPU cannot run, and so it cannot be compared here")


def _recheck_decoder(bundle: Bundle, checkpoint: Checkpoint, source: str) -> Parity:
    manifest, model = bundle.manifest, checkpoint.model
    path, info = bundle.graph("decoder")
    cache = manifest.cache or CacheInfo("float32", [])
    window = min(_WINDOW, manifest.max_length)
    ids = texts.text_ids(checkpoint.tokenizer, texts.read_text("evaluation"), _TOKENS, model, window=window)
    first = ids[: min(_PARITY_TOKENS, manifest.max_length - 8)]
    logits, is_float = reference_logits(model, first), info.quantization.scheme == "none"
    if manifest.target == "gpu":
        for_gpu = GpuDecoderRunner(path, cache, usable_cores())
        share = allowed_error(sum(info.operators.values()), "float16")
        parity = in_half(decoder_parity(for_gpu, logits, first), share)
        check_half(parity, cache.dtype, quantized=not is_float)
        return parity
    runner = decoder_runner(path, cache, usable_cores())
    parity = decoder_parity(runner, logits, first)
    if is_float:
        check_float_bundle(parity, bundle, source)
        if isinstance(runner, DecoderRunner) and LAST_HIDDEN_STATE in runner.extra_outputs:
            verify_states(runner, reference_states(model, first), first)
        return parity

    def measured(found: RaggedDecoder) -> QuantizedParity:
        return quantized_decoder_parity(lambda piece: reference_logits(model, piece), found, ids, window)

    quantized = measured(runner)
    check_as_recorded(quantized, bundle, source)
    parity = dataclasses.replace(parity, quantized=quantized)
    if PROMPTS not in manifest.graphs:
        return parity
    for_prompts, _ = bundle.graph(PROMPTS)
    prompts = measured(decoder_runner(for_prompts, cache, usable_cores()))
    check_prompts_as_recorded(prompts, bundle, source)
    return dataclasses.replace(parity, prompts=prompts)


def _same_vocabulary(config: transformers.PretrainedConfig, manifest: Manifest) -> bool:
    """Whether a config has as many tokens as a bundle; true if it gives no number, or the bundle reads no texts."""
    # Both sides of an encoder-decoder may have a vocabulary of their own.
    text = config.get_text_config(decoder=True if manifest.form == "encoder-decoder" else None)
    size = getattr(text, "vocab_size", None)
    return manifest.tokenizer is None or size is None or size == manifest.vocab_size
