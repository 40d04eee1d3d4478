"""Parity of a finished bundle with its source, again."""

from __future__ import annotations

import transformers

from triform.export.checkpoint.loading import load, read_config
from triform.export.checkpoint.resolve import find
from triform.export.recheck.encoder import verify_encoder
from triform.export.recheck.encoder_decoder import verify_pair_against
from triform.export.runners import GraphRunner, usable_cores
from triform.export.samples import texts
from triform.export.verify import decoder as verify
from triform.export.verify.decoder import check_states, reference_states
from triform.models.decoder.hidden_states import LAST_HIDDEN_STATE
from triform.runtime.bundle.export_record import EncoderParity, Parity
from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import Manifest
from triform.runtime.errors import ExportError

_TOKENS, _WINDOW = 1024, 512


def verify_against(bundle: Bundle, source: str) -> Parity | EncoderParity:
    """Compare a bundle with the checkpoint it came from.

    A float bundle must match PyTorch's outputs; a quantized one is measured against PyTorch.

    Args:
        bundle: an opened bundle.
        source: a transformers folder, a GGUF file, word vectors or a hub id.

    Raises:
        ExportError: the source cannot be loaded, is of another architecture, or a float bundle's outputs differ.
    """
    manifest = bundle.manifest
    found = find(source)
    config = read_config(found)
    if config.model_type != manifest.model_type or not _same_vocabulary(config, manifest):
        raise ExportError(f"{source} is not what {bundle.folder} was exported from: it is another architecture")
    if manifest.form == "encoder":
        return verify_encoder(bundle, found, config)
    if manifest.form == "encoder-decoder":
        return verify_pair_against(bundle, found, config)
    checkpoint = load(found, config, transformers.AutoModelForCausalLM)
    path, info = bundle.graph("decoder")
    layers = manifest.cache.layers if manifest.cache is not None else []
    runner = GraphRunner(path, layers, usable_cores())
    ids = texts.ids(checkpoint.tokenizer, "evaluation", _TOKENS, checkpoint.model)
    first = ids[: min(192, manifest.max_length - 8)]
    expected = verify.reference_logits(checkpoint.model, first)
    if info.quantization.scheme == "none":
        if LAST_HIDDEN_STATE in runner.extra_outputs:
            check_states(runner, reference_states(checkpoint.model, first), first)
        return verify.compare_with_reference(runner, expected, first)
    parity = verify.measure(runner, expected, first)
    quantized = verify.compare_quantized(
        lambda piece: verify.reference_logits(checkpoint.model, piece), runner, ids, min(_WINDOW, manifest.max_length)
    )
    return Parity(parity.prefill, parity.chunked, parity.step, parity.ragged, parity.scale, parity.tolerance, quantized)


def _same_vocabulary(config: transformers.PretrainedConfig, manifest: Manifest) -> bool:
    """Whether a config has as many tokens as a bundle, where it tells and the bundle reads texts."""
    # Both sides of an encoder-decoder may have a vocabulary of their own.
    text = config.get_text_config(decoder=True if manifest.form == "encoder-decoder" else None)
    size = getattr(text, "vocab_size", None)
    return manifest.tokenizer is None or size is None or size == manifest.vocab_size
