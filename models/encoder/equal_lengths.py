"""Handles encoders that read padding as text: their rows of one run must have equal lengths."""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel

from triform.models.encoder.graph import EncoderGraph, reference_outputs
from triform.models.encoder.probing import probe_inputs, reads_padding
from triform.models.errors import UnsupportedModelError, first_line
from triform.models.spec import EncoderTask
from triform.models.traceable.pooled_lengths import shortest_pooled

# No model needs more tokens than this in a row.
_LONGEST_MINIMUM = 64


def without_padding(model: PreTrainedModel, task: EncoderTask) -> EncoderTask:
    """Remove the mask of padding from the task if `model` reads padding as text.

    The results of such a model for a text change when padding follows it, so its rows must not be padded.

    Args:
        model: as for `encoder_spec`.
        task: returned as it is if it has no mask, or the model does not read padding.

    Raises:
        UnsupportedModelError: the model cannot read a short text.
    """
    inputs = probe_inputs(model, task)
    graph = EncoderGraph(model, task)
    try:
        padding_is_read = reads_padding(graph, task, inputs, reference_outputs(model, task, inputs))
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        length = inputs[0].shape[1]
        what = f"a text of {length} tokens" if task.frames is None else "audio"
        raise UnsupportedModelError(f"it does not read {what}: {first_line(error)}") from error
    finally:
        graph.release()
    inputs_without_mask = tuple(name for name in task.inputs if name != task.mask)
    # Pooling mixes the last token with padding in rows of every other length.
    return replace(task, inputs=inputs_without_mask) if padding_is_read or shortest_pooled(model) else task


def shortest_row(model: PreTrainedModel, task: EncoderTask) -> int:
    """The fewest tokens of a row that `model` can read without padding as it reads longer rows, found by trying.

    Raises:
        UnsupportedModelError: it can read no short row.
    """
    inputs = probe_inputs(model, task)
    failure = ""
    for length in range(shortest_pooled(model) or 1, _LONGEST_MINIMUM + 1):
        try:
            rows = tuple(tensor[:1, :1].expand(1, length, *tensor.shape[2:]) for tensor in inputs)
            reference_outputs(model, task, rows)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:
            failure = first_line(error)
            continue
        return length
    raise UnsupportedModelError(f"it reads no text of up to {_LONGEST_MINIMUM} tokens: {failure}")
