"""A cache of the hub that nothing may be fetched into, and small checkpoints that tests may change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import transformers
from huggingface_hub import constants

from tests.checkpoints.decoders import llama_folder
from tests.checkpoints.encoders import bert_folder


@pytest.fixture(autouse=True)
def no_bars():
    transformers.utils.logging.disable_progress_bar()


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """HF_HOME/hub, with HF_HUB_OFFLINE set. Both are read once, when the hub's client is imported."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hf" / "hub"


@pytest.fixture(scope="session")
def shared_llama(tmp_path_factory) -> Path:
    return llama_folder(tmp_path_factory.mktemp("llama") / "tiny-llama", num_hidden_layers=1, tie_word_embeddings=False)


@pytest.fixture(scope="session")
def shared_bert(tmp_path_factory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert") / "tiny-bert", "BertForMaskedLM", num_hidden_layers=1)


@pytest.fixture
def llama(shared_llama, tmp_path) -> Path:
    """One layer, a head of its own; may be damaged."""
    return Path(shutil.copytree(shared_llama, tmp_path / "tiny-llama"))


@pytest.fixture
def bert(shared_bert, tmp_path) -> Path:
    """One layer, for masked words; may be damaged."""
    return Path(shutil.copytree(shared_bert, tmp_path / "tiny-bert"))
