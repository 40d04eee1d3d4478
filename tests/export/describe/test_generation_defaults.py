"""What a generation config says arrives in the manifest, and is what a decoder does when nothing is asked."""

from __future__ import annotations

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

import triform
from tests.helpers.bundles import change, read_manifest_json
from triform.export.describe.generation_defaults import defaults_left_out, generation_defaults
from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.errors import BundleError
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Penalties

PROMPT = "The ferry left the harbor"


def test_a_config_that_says_nothing():
    assert generation_defaults(GenerationConfig()) == GenerationDefaults()


def test_a_config_that_says_everything():
    said = {
        "do_sample": True, "temperature": 0.5, "top_k": 5, "top_p": 0.6, "min_p": 0.1, "typical_p": 0.7,
        "epsilon_cutoff": 0.01, "eta_cutoff": 0.02, "repetition_penalty": 1.1, "encoder_repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3, "encoder_no_repeat_ngram_size": 4, "exponential_decay_length_penalty": (5, 1.5),
        "num_beams": 4, "length_penalty": 2.0, "early_stopping": "never", "min_new_tokens": 2, "min_length": 3,
        "max_new_tokens": 50, "max_length": 60, "forced_bos_token_id": 7, "forced_eos_token_id": 8,
        "suppress_tokens": [1, -1], "begin_suppress_tokens": [2], "bad_words_ids": [[3], [4, 5]], "stop_strings": "END",
    }  # fmt: skip
    changed = {
        "exponential_decay_length_penalty": [5.0, 1.5],
        "forced_eos_token_id": [8],
        "suppress_tokens": [1],
        "stop_strings": ["END"],
    }
    assert generation_defaults(GenerationConfig(**said)) == GenerationDefaults(**(said | changed))


def with_defaults(bundle, **defaults):
    change(bundle, generation=read_manifest_json(bundle)["generation"] | defaults)
    return triform.load(bundle)


def test_the_models_defaults_are_honored(own_bundle, checkpoint):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    ids = tokenizer(PROMPT, return_tensors="pt")
    length = ids["input_ids"].shape[1]
    defaults = {
        "repetition_penalty": 1.4,
        "no_repeat_ngram_size": 3,
        "min_length": length + 20,
        "max_length": length + 25,
    }
    expected = model.generate(**ids, do_sample=False, pad_token_id=0, **defaults)[0, length:].tolist()
    decoder = with_defaults(own_bundle, **defaults)
    assert list(decoder.generate(PROMPT, raw=True).token_ids) == expected
    off = GenerationOptions(penalties=Penalties(repetition_penalty=1.0, no_repeat_ngram_size=0))
    assert list(decoder.generate(PROMPT, off, raw=True).token_ids) != expected


@pytest.mark.parametrize("asked", [{}, {"temperature": 1.5}])
def test_where_nobody_says_how_many_tokens_are_drawn_from_it_is_50(own_bundle, asked):
    """As transformers' `generate`, whether the model samples by itself or is asked to."""
    decoder = with_defaults(own_bundle, do_sample=None if asked else True)
    logits = decoder.logits(PROMPT)[-1]
    drawn = [
        decoder.generate(PROMPT, GenerationOptions(max_new_tokens=1, seed=seed, **asked), raw=True).token_ids[0]
        for seed in range(100)
    ]
    ranks = [int((logits > logits[token]).sum()) for token in drawn]
    assert 25 < max(ranks) < 50
    every = [
        decoder.generate(PROMPT, GenerationOptions(max_new_tokens=1, seed=seed, top_k=0, **asked), raw=True).token_ids[
            0
        ]
        for seed in range(100)
    ]
    assert max(int((logits > logits[token]).sum()) for token in every) >= 50


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("temperature", -1.0),
        ("min_p", 1.5),
        ("repetition_penalty", 0),
        ("repetition_penalty", float("nan")),
        ("max_length", 0),
        ("num_beams", 0),
        ("early_stopping", "sometimes"),
        ("exponential_decay_length_penalty", [1.0]),
        ("suppress_tokens", [-1]),
        ("bad_words_ids", [[]]),
        ("stop_strings", [""]),
        ("forced_bos_token_id", -1),
    ],
)
def test_a_manifest_out_of_range_is_refused(own_bundle, key, value):
    with pytest.raises(BundleError, match=rf"generation\.{key}(\[0\])? must be"):
        with_defaults(own_bundle, **{key: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sequence_bias", [[[7], 50.0]]),
        ("guidance_scale", 1.7),
        ("watermarking_config", {"bias": 2.5}),
        ("encoder_repetition_penalty", 1.9),
    ],
)
def test_what_changes_the_answers_of_transformers_and_of_no_bundle_is_named(checkpoint, name, value):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(checkpoint), AutoTokenizer.from_pretrained(checkpoint)
    ids = tokenizer("The ferry left the harbor, the ferry", return_tensors="pt")
    plain, changed = (
        model.generate(**ids, do_sample=False, max_new_tokens=16, pad_token_id=0, **settings).tolist()
        for settings in ({}, {name: value})
    )
    assert changed != plain
    notes = defaults_left_out(GenerationConfig(**{name: value}), has_source=False)
    assert notes == [f"left out the generation default {name}: bundles answer without it"]


def test_what_changes_no_answer_is_not_named():
    off = {"sequence_bias": {}, "guidance_scale": 1.0, "encoder_repetition_penalty": 1.0, "num_return_sequences": 1}
    for config in (GenerationConfig(), GenerationConfig(**off), GenerationConfig(use_cache=False, output_scores=True)):
        assert defaults_left_out(config, has_source=False) == []


def test_encoder_decoders_have_the_penalties_of_their_sources():
    assert defaults_left_out(GenerationConfig(encoder_repetition_penalty=1.9), has_source=True) == []
