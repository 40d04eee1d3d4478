"""Makes the classifiers on encoder-decoders traceable, which classify the state of a text's last end-of-text token.

transformers picks that state with a mask of booleans, whose result has a shape that depends on data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.modeling_outputs import Seq2SeqSequenceClassifierOutput

from triform.models.patching import patched


def classifies_end(model: Any) -> bool:
    """Whether a model classifies the state of the last end-of-text token, which each of its texts must then have."""
    return model.config.is_encoder_decoder and hasattr(model, "classification_head")


@contextmanager
def traceable_end(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, such a `model` picks that state by its position."""
    with patched([(model, "forward", _by_position(model))] if classifies_end(model) else []):
        yield


def _by_position(model: Any) -> Callable[..., Seq2SeqSequenceClassifierOutput]:
    body = getattr(model, model.base_model_prefix)

    def forward(
        input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, **others: Any
    ) -> Seq2SeqSequenceClassifierOutput:
        # Some bodies read the text shifted to the right by themselves.
        if hasattr(model, "_shift_right"):
            others["decoder_input_ids"] = model._shift_right(input_ids)
        states = body(input_ids=input_ids, attention_mask=attention_mask, **others).last_hidden_state
        ends = input_ids == model.config.eos_token_id
        last = (torch.arange(input_ids.shape[1]) * ends).amax(-1)
        picked = torch.gather(states, 1, last[:, None, None].expand(-1, 1, states.shape[-1]))[:, 0]
        return Seq2SeqSequenceClassifierOutput(logits=model.classification_head(picked))

    return forward
