"""Frequencies that change with the length of a text: a bundle has those of one length."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import triform
from tests.checkpoints.decoders import llama_folder
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.export.recheck.against import verify_against
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.generation.options.generation import GenerationOptions

SWITCH = 256
ROPE = {
    "rope_type": "longrope", "rope_theta": 10000.0, "attention_factor": 1.2,
    "short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [2.0 + 0.5 * i for i in range(8)],
}  # fmt: skip
TEXT = "Twelve boats with red sails left the harbor before the storm came over the hills. " * 10


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    rope = {**ROPE, "original_max_position_embeddings": SWITCH}
    return llama_folder(tmp_path_factory.mktemp("longrope") / "model", chat=False, rope_parameters=rope)


@pytest.fixture(scope="module")
def bundles(checkpoint):
    """By the context length that is asked for."""
    made = {None: checkpoint.parent / "first", 640: checkpoint.parent / "second"}
    for context_length, folder in made.items():
        export(str(checkpoint), folder, ExportOptions(quantize="none", context_length=context_length))
    return made


def transformers_logits(checkpoint, text, switch=SWITCH):
    """Of transformers, which reads the whole text at once."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, attn_implementation="eager").eval()
    model.config.rope_parameters["original_max_position_embeddings"] = switch
    ids = AutoTokenizer.from_pretrained(checkpoint)(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return ids.shape[1], model(input_ids=ids, use_cache=False).logits[0].numpy()


def close(found, expected):
    return np.abs(found - expected).max() <= 5e-4 * np.abs(expected).max()


def test_by_default_the_context_is_that_of_the_first_set(checkpoint, bundles):
    model = triform.load(bundles[None])
    text = TEXT[:300]
    count, expected = transformers_logits(checkpoint, text)
    assert 100 < count < SWITCH
    assert close(model.logits(text), expected)
    manifest = open_bundle(bundles[None]).manifest
    assert manifest.max_length == SWITCH
    assert manifest.graphs["decoder"].notes["rotary"] == "fused"
    assert any("longrope" in note and "context_length" in note for note in manifest.export.notes)


def test_a_longer_context_has_the_second_set_for_all_texts(checkpoint, bundles):
    model = triform.load(bundles[640])
    text = TEXT[:800]
    count, expected = transformers_logits(checkpoint, text)
    assert SWITCH < count < 640
    assert close(model.logits(text), expected)
    _, of_first_set = transformers_logits(checkpoint, TEXT[:300])
    _, of_second_set = transformers_logits(checkpoint, TEXT[:300], switch=8)
    assert not close(of_first_set, of_second_set)
    assert close(model.logits(TEXT[:300]), of_second_set)
    assert any("longrope" in note for note in open_bundle(bundles[640]).manifest.export.notes)


def test_answers_go_on_where_transformers_would_read_the_text_again(checkpoint, bundles):
    """The prompt is shorter than the length at which transformers changes its frequencies, its answer is longer."""
    model = triform.load(bundles[640])
    prompt = TEXT[:500]
    options = GenerationOptions(max_new_tokens=60, min_new_tokens=60, temperature=0)
    answer = model.generate(prompt, options)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    ids = tokenizer(prompt)["input_ids"]
    assert len(ids) < SWITCH < len(ids) + len(answer.token_ids)
    torch_model = AutoModelForCausalLM.from_pretrained(checkpoint, attn_implementation="eager").eval()
    whole = torch.tensor([[*ids, *answer.token_ids]])
    with torch.no_grad():
        predicted = torch_model(input_ids=whole, use_cache=False).logits[0].argmax(-1).tolist()
    # Each token of the answer is what transformers predicts, reading all before it as part of a long text.
    assert predicted[len(ids) - 1 : -1] == list(answer.token_ids)


@pytest.mark.parametrize("context_length", [None, 640])
def test_a_bundle_is_verified_against_its_checkpoint(checkpoint, bundles, context_length):
    parity = verify_against(open_bundle(bundles[context_length]), str(checkpoint))
    assert 0 < parity.prefill <= parity.tolerance


def test_dynamic_frequencies_are_those_of_every_text_within_the_limit(tmp_path):
    """transformers changes them behind max_position_embeddings, where the context ends."""
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 3.0}
    folder = llama_folder(tmp_path / "model", chat=False, max_position_embeddings=192, rope_parameters=rope)
    export(str(folder), tmp_path / "bundle", ExportOptions(quantize="none"))
    model = triform.load(tmp_path / "bundle")
    text = TEXT[:360]
    count, expected = transformers_logits(folder, text)
    assert 130 < count <= 192
    assert close(model.logits(text), expected)
    assert (model.manifest.max_length, model.manifest.graphs["decoder"].notes["rotary"]) == (192, "fused")
