"""Finds how an encoder reads where each word stands on its page."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedModel

from triform.models.architectures import BOXES, takes
from triform.models.encoder.graph import reference_outputs
from triform.models.encoder.probing import PROBE_SHAPE, probe_inputs
from triform.models.errors import UnsupportedModelError, first_line
from triform.models.spec import EncoderTask

# The width and the height of a page in whole numbers, as transformers' processors of documents count them.
_WHOLE = 1000


@dataclass(frozen=True)
class BoxForm:
    """What the coordinates of boxes are.

    Attributes:
        scale: what the width and the height of a page count as.
        whole: whether they are whole numbers, which look up embeddings.
    """

    scale: int
    whole: bool

    def random(self, rows: int, length: int, seed: int) -> torch.Tensor:
        """Boxes that lie on the page, (rows, length, 4): int64 or float32."""
        generator = torch.Generator().manual_seed(seed)
        corners = torch.rand(rows, length, 2, 2, generator=generator).sort(dim=2).values.flatten(2) * self.scale
        return corners.long() if self.whole else corners


def with_boxes(model: PreTrainedModel, task: EncoderTask) -> tuple[EncoderTask, BoxForm | None]:
    """Add boxes to the inputs of a task, if `model` takes them and its results change with them.

    Args:
        model: as for `encoder_spec`.
        task: of texts; returned as it is for a model that reads no boxes.

    Raises:
        UnsupportedModelError: boxes of either form fail, or coordinates up to 1000 do.
    """
    if not takes(type(model), BOXES):
        return task, None
    form = _form(model, task)
    first, second = (_outputs(model, task, form.random(*PROBE_SHAPE, seed)) for seed in (0, 1))
    if all(torch.equal(one, other) for one, other in zip(first, second, strict=True)):
        return task, None
    return _given(task, form.random(*PROBE_SHAPE, 0)), form


def _form(model: PreTrainedModel, task: EncoderTask) -> BoxForm:
    """Fractions of the page if the model computes with them, else whole numbers."""
    fractions = BoxForm(1, False)
    try:
        _outputs(model, task, fractions.random(*PROBE_SHAPE, 0))
    except (RuntimeError, ValueError, IndexError):
        # They cannot look up embeddings.
        pass
    else:
        return fractions
    corners = torch.tensor([0, 0, _WHOLE, _WHOLE]).expand(*PROBE_SHAPE, 4)
    try:
        _outputs(model, task, corners)
    except (RuntimeError, ValueError, IndexError) as error:
        raise UnsupportedModelError(f"it does not read boxes from 0 to {_WHOLE}: {first_line(error)}") from error
    return BoxForm(_WHOLE, True)


def _given(task: EncoderTask, boxes: torch.Tensor) -> EncoderTask:
    return replace(task, inputs=(*task.inputs, BOXES), examples={**task.examples, BOXES: boxes})


def _outputs(model: PreTrainedModel, task: EncoderTask, boxes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    given = _given(task, boxes)
    return reference_outputs(model, given, probe_inputs(model, given))
