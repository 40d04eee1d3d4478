"""A folder without a usable image processor is refused in one line, whatever its file holds."""

from __future__ import annotations

import json

import pytest

from triform.export.checkpoint.files.float_resizing import FloatResizingProcessor
from triform.export.checkpoint.processors import load_image_processor
from triform.export.checkpoint.source import Source
from triform.runtime.errors import ExportError


@pytest.mark.parametrize("content", [None, [], "DINOv3ViTImageProcessor", {}, {"image_processor_type": "Unknown"}])
def test_what_is_no_image_processor(content, tmp_path):
    if content is not None:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(content))
    with pytest.raises(ExportError, match=r"^model has no usable image processor: ") as caught:
        load_image_processor(Source("model", tmp_path, tmp_path, tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["DINOv3ViTImageProcessor", "DINOv3ViTImageProcessorFast"])
def test_processors_that_transformers_has_for_torchvision_alone(name, tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": name}))
    assert isinstance(load_image_processor(Source("model", tmp_path, tmp_path, tmp_path)), FloatResizingProcessor)
