"""Encoders that read the padding behind a text: right only for rows of one length."""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel

from triform.models.encoder.graph import EncoderGraph, reference_outputs
from triform.models.encoder.probing import probe_inputs, reads_padding
from triform.models.errors import UnsupportedModelError, first_line
from triform.models.spec import EncoderTask

# No model needs as many tokens as that to say anything.
_LONGEST_MINIMUM = 64


def without_padding(model: PreTrainedModel, task: EncoderTask) -> EncoderTask:
    """The task as it is right for `model`: for one that reads padding, without an `attention_mask`.

    Such a model says something else of a text when padding stands behind it: no padded batch would be right.

    Args:
        model: as for `encoder_spec`.
        task: with an `attention_mask`; without one it is returned as it is.

    Raises:
        UnsupportedModelError: the model does not read texts of any length.
    """
    inputs = probe_inputs(model, task)
    graph = EncoderGraph(model, task)
    try:
        padding_is_read = reads_padding(graph, task, inputs, reference_outputs(model, task, inputs))
    except (RuntimeError, ValueError, IndexError) as error:
        length = inputs[0].shape[1]
        raise UnsupportedModelError(f"it does not read a text of {length} tokens: {first_line(error)}") from error
    finally:
        graph.release()
    alone = tuple(name for name in task.inputs if name != "attention_mask")
    return replace(task, inputs=alone) if padding_is_read else task


def shortest_row(model: PreTrainedModel, task: EncoderTask) -> int:
    """The fewest tokens that `model` reads in a row without padding; found by trying.

    Raises:
        UnsupportedModelError: no short row can be read.
    """
    inputs = probe_inputs(model, task)
    failure = ""
    for length in range(1, _LONGEST_MINIMUM + 1):
        try:
            reference_outputs(model, task, tuple(tensor[:1, :1].expand(1, length) for tensor in inputs))
        except (RuntimeError, ValueError, IndexError) as error:
            failure = first_line(error)
            continue
        return length
    raise UnsupportedModelError(f"it reads no text of up to {_LONGEST_MINIMUM} tokens: {failure}")
