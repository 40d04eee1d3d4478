"""Small models for CTC as transformers runs them, and as bundles of them run: exported once a run."""

from __future__ import annotations

import pytest
import transformers

import triform
from tests.checkpoints.ctc import save_ctc_checkpoint
from triform.export.options import ExportOptions


@pytest.fixture(scope="session", params=["layer", "group"])
def ctc_folder(request, tmp_path_factory):
    """With a mask of padding, and without one."""
    folder = tmp_path_factory.mktemp(f"ctc-{request.param}")
    save_ctc_checkpoint(folder, "wav2vec2", request.param)
    return folder


@pytest.fixture(scope="session")
def ctc_bundle(ctc_folder, export_once):
    return export_once(f"{ctc_folder.name}-float", ctc_folder, ExportOptions(quantize="none"))


@pytest.fixture(scope="session")
def ctc_model(ctc_bundle):
    return triform.load_speech(ctc_bundle)


@pytest.fixture(scope="session")
def pipeline(ctc_folder):
    """transformers' own, in which chunks of long recordings overlap."""
    return transformers.pipeline(
        "automatic-speech-recognition",
        model=transformers.AutoModelForCTC.from_pretrained(ctc_folder).eval(),
        tokenizer=transformers.AutoTokenizer.from_pretrained(ctc_folder),
        feature_extractor=transformers.AutoFeatureExtractor.from_pretrained(ctc_folder),
    )
