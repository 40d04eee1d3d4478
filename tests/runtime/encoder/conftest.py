"""A small sentence-transformers folder and its float bundle, made once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints.encoders import sentence_folder
from triform.export.options import ExportOptions
from triform.export.pipeline import export


@pytest.fixture(scope="session")
def sentence_source(tmp_path_factory) -> Path:
    """Mean pooling, length 1, a prompt for queries and one for everything that says nothing else."""
    return sentence_folder(
        tmp_path_factory.mktemp("sentence") / "checkpoint",
        {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
        [],
        normalize=True,
        prompts={"query": "Find what answers: ", "passage": "Text: ", "plain": ""},
    )


@pytest.fixture(scope="session")
def sentence_bundle(sentence_source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sentence") / "bundle"
    export(str(sentence_source), folder, ExportOptions(quantize="none"))
    return folder
