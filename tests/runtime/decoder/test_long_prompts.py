"""Which graph reads a prompt, and that what is reused was read by the same one."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import triform
from tests.checkpoints.decoders import llama_folder
from triform.export import ExportOptions, export
from triform.runtime.bundle.manifest import CHECKSUM
from triform.runtime.checked_json import sealed
from triform.runtime.decoder.model import Decoder
from triform.runtime.errors import BundleError
from triform.runtime.graphs.decoding import prompts as prompts_module
from triform.runtime.graphs.decoding.prompts import LONG, PromptGraphs

IDS = np.random.default_rng(3).integers(6, 400, 800).tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("long-prompts")
    source = llama_folder(base / "llama", max_position_embeddings=1024)
    export(source, base / "bundle", ExportOptions(quantize="int4", fast=True, fast_prompts=True))
    return base / "bundle"


@pytest.fixture
def model(folder) -> Decoder:
    return triform.load_decoder(folder)


@pytest.fixture
def plain(folder, tmp_path) -> Decoder:
    """The same decoder without its graph for prompts."""
    bundle = shutil.copytree(folder, tmp_path / "plain")
    (bundle / "prompts.onnx").unlink()
    (bundle / "prompts.onnx.data").unlink()
    manifest = json.loads((bundle / "manifest.json").read_text())
    del manifest["graphs"]["prompts"], manifest["files"]["prompts.onnx"], manifest["files"]["prompts.onnx.data"]
    del manifest[CHECKSUM]
    (bundle / "manifest.json").write_text(sealed(manifest, CHECKSUM))
    return triform.load_decoder(bundle)


def read(model, ids):
    return model._step.prefill(ids).copy()


def test_the_length_decides(model, plain):
    assert np.array_equal(read(model, IDS[: LONG - 1]), read(plain, IDS[: LONG - 1]))
    assert not np.array_equal(read(model, IDS[:LONG]), read(plain, IDS[:LONG]))


def test_prompts_in_any_order_give_what_each_gives_alone(folder, model):
    """Whatever the cache holds: longer and shorter prompts with the same beginning, read by either graph."""
    for length in (600, 200, 280, 120, 400, 800, 260, 254, 256):
        assert np.array_equal(read(model, IDS[:length]), read(triform.load_decoder(folder), IDS[:length])), length


def test_a_longer_prompt_runs_only_what_is_new(model, fed):
    read(model, IDS[:400])
    read(model, IDS[:600])
    # An even number is kept.
    assert fed == [400, 200]
    assert model._step.shared(IDS[:500]) == 498
    # Others were read by the other graph.
    assert model._step.shared(IDS[:200]) == 0


def test_answers_follow_the_prompt(model, fed):
    """Steps after a long prompt, and a next prompt that holds the answer."""
    first = model._step.prefill(IDS[:300]).argmax()
    second = model._step.next(int(first)).argmax()
    read(model, [*IDS[:300], int(first), int(second), *IDS[300:310]])
    # Of the 301 tokens in the cache an even number is kept.
    assert fed == [300, 1, 312 - 300]


def test_batches_agree_with_single_prompts(folder, model):
    rows = [IDS[:400], IDS[:180], [*IDS[:300], 7, 8, 9, 10], IDS[:260], [*IDS[:120], 5, 5]]
    step = model._batches._step(len(rows))
    found = step.prefill(rows)
    for row, logits in zip(rows, found, strict=True):
        assert np.array_equal(logits, read(triform.load_decoder(folder), row)), len(row)


def test_a_saved_prompt(folder, model, tmp_path):
    read(model, IDS[:400])
    model.save_prompt_cache(tmp_path / "prompt", 400)
    other = triform.load_decoder(folder)
    assert other.load_prompt_cache(tmp_path / "prompt") == 400
    assert other._step.shared(IDS[:520]) == 400
    assert np.array_equal(read(other, IDS[:520]), read(triform.load_decoder(folder), IDS[:520]))


def test_the_graph_is_opened_for_the_first_long_prompt_only(model, monkeypatch):
    opened, original = [], model._step._prompts._open_long
    model._step._prompts._open_long = lambda: opened.append(1) or original()
    read(model, IDS[:100])
    assert not opened
    for _ in range(2):
        model.forget()
        read(model, IDS[:400])
    model._batches._step(2).prefill([IDS[:280], IDS[:300]])
    assert opened == [1]


def test_without_such_a_graph_all_prompts_are_alike():
    graphs, own = PromptGraphs(), object()
    assert graphs.memory(own, 10 * LONG) is own
    assert not graphs.differ(1, 10 * LONG)
    assert prompts_module.LONG % 2 == 0


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_manifest_whose_graphs_differ_is_refused(folder, tmp_path, side):
    bundle = shutil.copytree(folder, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["graphs"]["prompts"][side][0]["name"] = "others"
    del manifest[CHECKSUM]
    (bundle / "manifest.json").write_text(sealed(manifest, CHECKSUM))
    with pytest.raises(BundleError, match=rf"graphs\.prompts\.{side} must be those of the graph decoder"):
        triform.load_decoder(bundle)


def test_a_graph_of_another_model_is_refused_when_it_is_needed(folder, tmp_path):
    """Its manifest and its hash fit, its cache does not."""
    source = llama_folder(tmp_path / "other", num_key_value_heads=3, max_position_embeddings=1024)
    export(source, tmp_path / "other-bundle", ExportOptions(quantize="int4", fast=True, fast_prompts=True))
    bundle = shutil.copytree(folder, tmp_path / "bundle")
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in ("prompts.onnx", "prompts.onnx.data"):
        shutil.copy(tmp_path / "other-bundle" / name, bundle / name)
        others = json.loads((tmp_path / "other-bundle" / "manifest.json").read_text())
        manifest["files"][name] = others["files"][name]
    del manifest[CHECKSUM]
    (bundle / "manifest.json").write_text(sealed(manifest, CHECKSUM))
    model = triform.load_decoder(bundle)
    read(model, IDS[:40])
    with pytest.raises(BundleError, match=r"prompts\.onnx"):
        read(model, IDS[:400])
