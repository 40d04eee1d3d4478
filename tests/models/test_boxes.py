"""How an encoder reads boxes is found by running it."""

from __future__ import annotations

import pytest
import torch

from tests.checkpoints.layouts import layout_model
from triform.models.encoder.boxes import BoxForm, with_boxes
from triform.models.encoder.tasks import text_task
from triform.models.errors import UnsupportedModelError

INPUTS = ("input_ids", "attention_mask")
WHOLE, FRACTIONS = BoxForm(1000, True), BoxForm(1, False)


@pytest.mark.parametrize(
    ("architecture", "form"),
    [("LayoutLMModel", WHOLE), ("LiltModel", WHOLE), ("BrosModel", FRACTIONS)],
)
def test_the_form_is_found(architecture, form):
    task, found = with_boxes(layout_model(architecture), text_task("feature-extraction", INPUTS, False))
    assert found == form
    assert task.names == (*INPUTS, "bbox")
    assert task.examples["bbox"].dtype == (torch.int64 if form.whole else torch.float32)


@pytest.mark.parametrize("form", [WHOLE, FRACTIONS])
def test_random_boxes_lie_on_the_page_and_differ(form):
    boxes = form.random(3, 50, seed=1)
    assert 0 <= boxes.min() < boxes.max() <= form.scale
    assert (boxes[..., :2] <= boxes[..., 2:]).all()
    assert len(boxes.flatten(0, 1).unique(dim=0)) == 150


def test_boxes_without_effect_are_no_input():
    model = layout_model("LayoutLMForSequenceClassification")
    with torch.no_grad():
        for name, parameter in model.layoutlm.embeddings.named_parameters():
            if name[:2] in ("x_", "y_", "h_", "w_"):
                parameter.zero_()
    task = text_task("text-classification", INPUTS, False)
    assert with_boxes(model, task) == (task, None)


def test_fewer_places_than_a_page_has_are_refused():
    model = layout_model("LayoutLMModel", max_2d_position_embeddings=1000)
    with pytest.raises(UnsupportedModelError, match="it does not read boxes from 0 to 1000: "):
        with_boxes(model, text_task("feature-extraction", INPUTS, False))
