"""SmolLM2-135M-Instruct, the real weights: parity, quality, size, and the words it says."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import triform
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.generation.options.generation import GenerationOptions

QUESTION = "What is the capital of France?"


@pytest.fixture(scope="module")
def parity(real_bundle):
    return json.loads((real_bundle / "manifest.json").read_text())["export"]["parity"]


def test_float_graph_is_pytorchs(parity):
    for name in ("prefill", "chunked", "step", "ragged"):
        assert 0 < parity[name] <= parity["tolerance"]


def test_int4_stays_close(parity):
    """Bounds from the text's own measure: what round-to-nearest in blocks of 32 loses is twice this divergence."""
    measured = parity["quantized"]
    assert measured["mean_kl"] < 0.3
    assert measured["top1_agreement"] > 0.65
    assert measured["perplexity_quantized"] < 1.25 * measured["perplexity_original"]


def test_bundle_is_at_most_90_mb(real_bundle):
    assert sum(path.stat().st_size for path in real_bundle.iterdir()) <= 90e6


def test_the_graph_is_as_small_as_the_model(real_bundle):
    operators = json.loads((real_bundle / "manifest.json").read_text())["graphs"]["decoder"]["operators"]
    assert operators["MatMulNBits"] == 30 * 4 + 1
    assert operators["GroupQueryAttention"] == 30
    assert "Transpose" not in operators
    assert "Reshape" not in operators or operators["Reshape"] < 4


def test_it_knows_the_capital_of_france(real_bundle):
    found = triform.load(real_bundle).generate(QUESTION, GenerationOptions(max_new_tokens=20, temperature=0))
    assert "Paris" in found.text
    assert found.finish_reason == "stop"


def test_float_bundle_says_what_transformers_says(real_gguf, tmp_path):
    export(str(real_gguf), tmp_path / "bundle", ExportOptions(quantize="none", context_length=512, fast=True))
    location = {"pretrained_model_name_or_path": real_gguf.parent, "gguf_file": real_gguf.name}
    model = AutoModelForCausalLM.from_pretrained(**location, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(**location)
    messages = [{"role": "user", "content": QUESTION}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    expected = model.generate(**ids, max_new_tokens=40, do_sample=False)[0, ids["input_ids"].shape[1] :]
    found = triform.load(tmp_path / "bundle").generate(QUESTION, GenerationOptions(max_new_tokens=40, temperature=0))
    assert list(found.token_ids) == expected.tolist()
