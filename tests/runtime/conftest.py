"""Bundles of checkpoints that do not repeat themselves, made once a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.checkpoints.wandering import wandering_folder
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.bundle.manifest import Manifest
from triform.runtime.graphs.decoding.batch import DecoderBatchStep
from triform.runtime.graphs.session import open_session
from triform.runtime.graphs.signature import check_decoder


@dataclass(frozen=True)
class Wandering:
    """A model, and the bundle made of it."""

    model: PreTrainedModel
    session: Any
    manifest: Manifest
    path: Path

    def step(self, rows: int = 1) -> DecoderBatchStep:
        return DecoderBatchStep(
            self.session, self.manifest, check_decoder(self.session, self.manifest, self.path), rows=rows
        )


def _wandering(folder: Path, family: str) -> Wandering:
    checkpoint = wandering_folder(folder / "checkpoint", family)
    export(str(checkpoint), folder / "bundle", ExportOptions(quantize="none"))
    bundle = open_bundle(folder / "bundle")
    path, _ = bundle.graph("decoder")
    model = AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    return Wandering(model, open_session(path), bundle.manifest, path)


@pytest.fixture(scope="session")
def wandering_llama(tmp_path_factory) -> Wandering:
    return _wandering(tmp_path_factory.mktemp("wandering-llama"), "llama")


@pytest.fixture(scope="session")
def wandering_gpt2(tmp_path_factory) -> Wandering:
    return _wandering(tmp_path_factory.mktemp("wandering-gpt2"), "gpt2")


@pytest.fixture
def fed(monkeypatch):
    """How many tokens each run of the graph is fed."""
    from triform.runtime.graphs.decoding import step

    found, original = [], step.run_step

    def counted(session, binding):
        found.append(binding.input_ids.shape[1])
        original(session, binding)

    monkeypatch.setattr(step, "run_step", counted)
    return found


@pytest.fixture
def compiled(monkeypatch):
    """The forms that llguidance compiled: one entry for each parser that was made, and none for its copies."""
    import llguidance

    found, original = [], llguidance.LLMatcher

    class Counted:
        def __call__(self, tokenizer, grammar, **more):
            found.append(grammar)
            return original(tokenizer, grammar, **more)

        def __getattr__(self, name):
            return getattr(original, name)

    monkeypatch.setattr(llguidance, "LLMatcher", Counted())
    return found
