"""Checkpoints and bundles made once a run and shared; tests that damage one copy it first."""

from __future__ import annotations

import gc
import os
import re
import shutil
from functools import cache, partial
from pathlib import Path

import pytest
import transformers
from filelock import FileLock

from tests.checkpoints.decoders import llama_folder
from tests.checkpoints.encoders import sentence_folder
from tests.helpers.commands import invoke
from tests.helpers.wheels import build_wheel
from triform.export.options import ExportOptions
from triform.export.pipeline import export


def pytest_collection_finish() -> None:
    """Look for garbage less often, and not among what is there to stay: torch and transformers are large."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Nothing is remembered of the bundles of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def export_once(tmp_path_factory, worker_id):
    """From a name, a checkpoint and options to a bundle that worker processes share: the first that asks writes it."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "shared-bundles"
    root.mkdir(exist_ok=True)

    def find(name: str, source: Path, options: ExportOptions) -> Path:
        with FileLock(root / f"{name}.lock"):
            if not (root / name).exists():
                export(str(source), root / name, options)
        return root / name

    return find


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Path:
    return llama_folder(tmp_path_factory.mktemp("checkpoints") / "tiny-llama")


@pytest.fixture(scope="session")
def float_bundle(checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "float"
    export(str(checkpoint), folder, ExportOptions(quantize="none"))
    return folder


@pytest.fixture(scope="session")
def int4_bundle(checkpoint, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "int4"
    export(str(checkpoint), folder, ExportOptions(quantize="int4", block_size=32))
    return folder


@pytest.fixture
def own_bundle(float_bundle, tmp_path) -> Path:
    """A copy a test may damage."""
    return Path(shutil.copytree(float_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def real_gguf() -> Path:
    """SmolLM2-135M-Instruct, which `make test` fetches and names in the environment."""
    return Path(os.environ["TRIFORM_TEST_GGUF"]).absolute()


@pytest.fixture(scope="session")
def real_bundle(real_gguf, export_once) -> Path:
    return export_once("smollm2-int4", real_gguf, ExportOptions(quantize="int4"))


@pytest.fixture(scope="session")
def real_minilm() -> Path:
    """all-MiniLM-L6-v2, which `make test` fetches and names in the environment."""
    return Path(os.environ["TRIFORM_TEST_MINILM"]).absolute()


@pytest.fixture(scope="session")
def minilm_bundle(real_minilm, export_once) -> Path:
    return export_once("minilm-int8", real_minilm, ExportOptions())


@pytest.fixture(scope="session")
def whisper_folder() -> Path:
    """whisper-tiny.en, which `make test` fetches, converts and names in the environment."""
    return Path(os.environ["TRIFORM_TEST_WHISPER"]).absolute()


@pytest.fixture(scope="session")
def speech_clips() -> list[tuple[Path, str]]:
    """Five clips of an audiobook, 16 kHz, each with what is said: lower case, no punctuation.

    `make test` fetches them and names their folder in the environment.
    """
    folder = Path(os.environ["TRIFORM_TEST_SPEECH"]).absolute()
    lines = (folder / "transcription").read_text().splitlines()
    found = [re.fullmatch(r"<s> (?P<words>.+) </s> \((?P<name>.+)\)", line) for line in lines]
    return [(folder / f"{line['name']}.wav", line["words"]) for line in found]


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


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """What small tokenizers of models with an encoder and a decoder are made of."""
    from tests.checkpoints.seq2seq_tokenizers import Trained

    return Trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """Triform's wheel."""
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="session")
def exported_family(trained, tmp_path_factory):
    """From the name of an encoder-decoder family to the folders of its checkpoint and of its float bundle."""
    from tests.checkpoints.encoder_decoder_families import FAMILIES, folder_of

    # It would be on the standard error that tests look at.
    transformers.utils.logging.disable_progress_bar()

    @cache
    def find(name: str) -> tuple[Path, Path]:
        root = tmp_path_factory.mktemp("family")
        folder = folder_of(name, root / "checkpoint", trained)
        export(str(folder), root / "bundle", ExportOptions(quantize="none", task=FAMILIES[name].task))
        return folder, root / "bundle"

    return find


@pytest.fixture(scope="session")
def exported_image_model(tmp_path_factory):
    """From the name of a model that reads images to the folders of its checkpoint and its bundle."""

    # It would be on the standard error that tests look at.
    transformers.utils.logging.disable_progress_bar()

    from tests.checkpoints.images import IMAGE_MODELS

    @cache
    def find(name: str) -> tuple[Path, Path]:
        root = tmp_path_factory.mktemp(name)
        folder = IMAGE_MODELS[name](root / "checkpoint")
        export(str(folder), root / "bundle", ExportOptions(quantize="none"))
        return folder, root / "bundle"

    return find


@pytest.fixture
def call(capsys):
    """From the arguments of a command to its exit code, standard output and standard error."""
    return partial(invoke, capsys)
