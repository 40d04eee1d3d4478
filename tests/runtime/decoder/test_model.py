"""The Decoder against transformers running the same checkpoint."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import triform
from triform.runtime.errors import InputError, ProviderError
from triform.runtime.generation.options.generation import GenerationOptions

PROMPT = "The ferry left the harbor"


@pytest.fixture(scope="module")
def reference(checkpoint):
    return AutoModelForCausalLM.from_pretrained(checkpoint).eval(), AutoTokenizer.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def decoder(float_bundle):
    return triform.load(float_bundle)


def test_greedy_tokens_equal_transformers(decoder, reference):
    model, tokenizer = reference
    ids = tokenizer(PROMPT, return_tensors="pt")
    expected = model.generate(**ids, max_new_tokens=60, do_sample=False, pad_token_id=0)[0, ids["input_ids"].shape[1] :]
    found = decoder.generate(PROMPT, GenerationOptions(max_new_tokens=60, temperature=0), raw=True)
    assert list(found.token_ids) == expected.tolist()
    assert found.text == tokenizer.decode(expected, skip_special_tokens=True)
    assert found.prompt_tokens == ids["input_ids"].shape[1]
    assert found.finish_reason == ("stop" if 2 in found.token_ids else "length")


def test_a_prompt_of_several_chunks(decoder, reference):
    model, tokenizer = reference
    ids = (tokenizer(triform_text())["input_ids"] * 3)[:600]
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0].numpy()
    decoder._step.cache.reset()
    assert np.abs(decoder._step.prefill(ids) - expected[-1]).max() < 5e-4 * np.abs(expected).max()


def triform_text():
    from triform.export.samples import texts

    return texts.read_text("evaluation")


def test_logits_and_perplexity_equal_pytorch(decoder, reference):
    model, tokenizer = reference
    ids = torch.tensor([tokenizer(PROMPT)["input_ids"]])
    with torch.no_grad():
        output = model(input_ids=ids, labels=ids)
    assert np.abs(decoder.logits(PROMPT) - output.logits[0].numpy()).max() < 5e-4 * output.logits.abs().max()
    assert decoder.perplexity(PROMPT) == pytest.approx(output.loss.exp().item(), rel=1e-4)


def test_perplexity_of_a_text_longer_than_the_context_counts_each_token_once(decoder, reference):
    model, tokenizer = reference
    text = triform_text()
    ids = tokenizer(text)["input_ids"]
    window = decoder.manifest.max_length
    assert len(ids) > 2 * window
    losses, counted = [], 1
    with torch.no_grad():
        while counted < len(ids):
            end = min(len(ids), window if counted == 1 else counted + window // 2)
            start = max(0, end - window)
            table = model(input_ids=torch.tensor([ids[start:end]])).logits[0].log_softmax(-1)
            losses += [-table[i - 1 - start, ids[i]].item() for i in range(counted, end)]
            counted = end
    assert len(losses) == len(ids) - 1
    assert decoder.perplexity(text) == pytest.approx(float(np.exp(np.mean(losses))), rel=1e-3)


def test_stream_joins_to_generate_and_a_second_run_starts_afresh(decoder):
    options = GenerationOptions(max_new_tokens=20, temperature=0)
    whole = decoder.generate(PROMPT, options)
    pieces = list(decoder.stream(PROMPT, options))
    assert "".join(piece.text for piece in pieces) == whole.text
    assert [token for piece in pieces for token in piece.token_ids] == list(whole.token_ids)
    assert [piece.finish_reason for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    assert pieces[-1].finish_reason == whole.finish_reason


def test_an_abandoned_stream_leaves_the_decoder_usable(decoder):
    options = GenerationOptions(max_new_tokens=20, temperature=0)
    expected = decoder.generate(PROMPT, options).token_ids
    stream = decoder.stream(PROMPT, options)
    next(stream)
    stream.close()
    assert decoder.generate(PROMPT, options).token_ids == expected


def test_chat_template_wraps_a_plain_prompt(decoder, reference):
    _, tokenizer = reference
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": PROMPT}]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    options = GenerationOptions(max_new_tokens=5, temperature=0)
    plain = decoder.generate(PROMPT, options, system="Be kind.")
    assert plain.prompt_tokens == len(expected)
    assert decoder.generate(messages, options).token_ids == plain.token_ids


def test_generation_up_to_the_context(decoder):
    limit = decoder.manifest.max_length
    found = decoder.generate(triform_text()[:600], GenerationOptions(temperature=1.0, seed=3), raw=True)
    assert found.finish_reason == "stop" or found.prompt_tokens + len(found.token_ids) == limit


def test_how_long_it_took_to_load_and_to_answer(float_bundle):
    start = time.perf_counter()
    decoder = triform.load(float_bundle)
    loaded = time.perf_counter()
    timings = decoder.generate(PROMPT, GenerationOptions(max_new_tokens=4, temperature=0), raw=True).timings
    assert 0 < timings.load <= loaded - start
    assert 0 < timings.prefill + sum(timings.tokens) <= time.perf_counter() - loaded


def test_a_growing_cache_gives_the_same_tokens(decoder, float_bundle):
    fresh = triform.load(float_bundle)
    grown = list(fresh.stream("a", GenerationOptions(temperature=0), raw=True))[:200]
    known = decoder.generate("a", GenerationOptions(max_new_tokens=200, temperature=0), raw=True)
    assert [token for piece in grown for token in piece.token_ids] == list(known.token_ids)


@pytest.mark.parametrize("prompt", ["", []])
def test_an_empty_prompt_is_refused(decoder, prompt):
    with pytest.raises(InputError, match="empty"):
        decoder.generate(prompt)


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(decoder):
    with pytest.raises(InputError, match=r"\d+ tokens but this model's context is 640"):
        decoder.generate(triform_text(), raw=True)


def test_a_provider_that_is_absent_fails_clearly(float_bundle):
    with pytest.raises(ProviderError, match=r"not available in this onnxruntime; available: .*cpu"):
        triform.load(float_bundle, provider="tensorrt")


def test_threads_below_one_are_refused(float_bundle):
    with pytest.raises(InputError, match=r"^`threads` must be between"):
        triform.load(float_bundle, threads=0)
