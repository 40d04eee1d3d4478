"""What an encoder-decoder computes by transformers alone: the expected values for its graphs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache

from triform.models.encoder_decoder.streams import predicts_streams
from triform.models.errors import UnsupportedModelError, first_line
from triform.models.traceable.own_experts import unlimited_experts


def cache_name(model: Any) -> str:
    """The model's name for its cache, which differs between versions of transformers."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def reference_logits(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], decoder_input_ids: torch.Tensor
) -> torch.Tensor:
    """As `computed_logits`, without gradients.

    Raises:
        UnsupportedModelError: the model does not take the inputs that the checkpoint's other files make of a sample, or
            the token that its config begins answers with.
    """
    try:
        with torch.no_grad():
            return computed_logits(model, inputs, decoder_input_ids)
    except (RuntimeError, ValueError, IndexError) as error:
        if isinstance(error, UnsupportedModelError):
            raise
        shapes = " and ".join(f"{name} of {' x '.join(map(str, array.shape))}" for name, array in inputs.items())
        raise UnsupportedModelError(
            f"transformers' own model does not take {shapes} with decoder tokens up to {int(decoder_input_ids.max())}: "
            f"{first_line(error)}"
        ) from error


def computed_logits(
    model: PreTrainedModel, inputs: Mapping[str, torch.Tensor], decoder_input_ids: torch.Tensor
) -> torch.Tensor:
    """The model's logits, computed with transformers' eager attention: float (batch, sequence, vocab_size).

    Experts take any number of the decoder's tokens, because an answer is written token by token.

    Raises:
        UnsupportedModelError: transformers itself cannot write with the model.
    """
    model.set_attn_implementation("eager")
    with unlimited_experts(model.get_decoder()):
        if predicts_streams(model):
            return _in_steps(model, inputs, decoder_input_ids)
        logits: torch.Tensor = model(**inputs, decoder_input_ids=decoder_input_ids, use_cache=False).logits
    return logits


def _in_steps(model: Any, inputs: Mapping[str, torch.Tensor], decoder_input_ids: torch.Tensor) -> torch.Tensor:
    """The logits of tokens that are given one by one, as `generate` does.

    Of several tokens at once, transformers mixes up the biases of ProphetNet's predicting streams: what it computes
    for a token depends on later ones.
    """
    if model.config.pad_token_id:
        raise UnsupportedModelError(
            f"its padding is the token {model.config.pad_token_id}, with which transformers itself does not write "
            "token by token; it must be 0"
        )
    found = []
    # The model's own has as many layers as its encoder.
    cache = {cache_name(model): EncoderDecoderCache(DynamicCache(), DynamicCache())}
    encoder_outputs = model.get_encoder()(**inputs)
    for token in decoder_input_ids.split(1, dim=1):
        outputs = model(
            encoder_outputs=encoder_outputs,
            attention_mask=inputs.get("attention_mask"),
            decoder_input_ids=token,
            use_cache=True,
            **cache,
        )
        found.append(outputs.logits)
    return torch.cat(found, 1)
