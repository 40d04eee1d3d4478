"""Parity of a finished encoder-decoder with its source, again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedModel

from triform.export.checkpoint.source import Source
from triform.export.describe.special_tokens import tokens_of
from triform.export.forms import encoder_decoder as encoder_decoder_export
from triform.export.graph.tracing import quiet
from triform.export.options import ExportOptions
from triform.export.runners import PairRunner, usable_cores
from triform.export.samples.batches import Array
from triform.export.verify import encoder_decoder as verify_pair
from triform.models.encoder_decoder.graph import reference_logits
from triform.models.encoder_decoder.kinds import encoder_decoder_kind
from triform.runtime.bundle.export_record import Parity
from triform.runtime.bundle.folder import Bundle
from triform.runtime.errors import ExportError


class _Original:
    """PyTorch's model where `verify_pair.compare_quantized` takes a `PairRunner`, and the decoder that one gives."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._source: dict[str, torch.Tensor] = {}
        self._ids = np.zeros((1, 0), np.int64)

    def read(self, arrays: Mapping[str, Array]) -> _Original:
        """The decoder, about to answer to one source."""
        self._source = {name: torch.from_numpy(value) for name, value in arrays.items()}
        return self

    def start(self, batch: int, capacity: int) -> None:
        """Begin anew."""
        self._ids = np.zeros((batch, 0), np.int64)

    def feed(self, input_ids: Array, positions: Array) -> tuple[Array, dict[str, Array]]:
        """Logits at some positions of a chunk, as `GraphRunner.feed` gives them."""
        before = self._ids.shape[1]
        self._ids = np.concatenate([self._ids, input_ids], axis=1)
        logits = reference_logits(self._model, self._source, torch.from_numpy(self._ids)).numpy()
        return np.take_along_axis(logits, (positions.astype(np.int64) + before)[..., None], axis=1), {}


def verify_pair_against(bundle: Bundle, found: Source, config: PretrainedConfig) -> Parity:
    """Compare an encoder-decoder with the checkpoint it came from; see `recheck.verify_against`."""
    manifest, info = bundle.manifest, bundle.manifest.encoder_decoder
    if info is None:
        raise ExportError(f"{bundle.folder} does not say what it reads; export the model again")
    checkpoint = encoder_decoder_export.load(found, config, ExportOptions(context_length=manifest.max_length))
    with quiet():
        sources = encoder_decoder_export.sources_of(encoder_decoder_kind(config), checkpoint)
    if (sources.audio, sources.image) != (info.audio, info.image):
        raise ExportError(f"{found.name} makes other inputs of sound or pictures than {bundle.folder} does")
    pad = tokens_of(checkpoint).pad or 0
    trial = verify_pair.trial_of(checkpoint.model, sources, info.decoder_start, manifest.max_length, pad)
    layers = manifest.cache.layers if manifest.cache is not None else []
    (encoder, _), (decoder, described) = bundle.graph("encoder"), bundle.graph("decoder")
    runner = PairRunner(encoder, decoder, layers, usable_cores())
    if described.quantization.scheme == "none":
        return verify_pair.compare_with_reference(runner, trial)
    parity = verify_pair.measure(runner, trial)
    quantized = verify_pair.compare_quantized(_Original(checkpoint.model), runner, trial)
    return dataclasses.replace(parity, quantized=quantized)
