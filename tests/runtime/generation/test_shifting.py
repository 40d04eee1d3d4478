"""A context that shifts: every logit is what transformers says of the tokens that are kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

import triform
from triform.runtime.errors import InputError
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.shifting import ShiftingStep

SHIFT = {"temperature": 0, "on_overflow": "shift"}


@pytest.fixture(scope="module")
def model(checkpoint):
    return AutoModelForCausalLM.from_pretrained(checkpoint).eval()


@pytest.fixture(scope="module")
def decoder(float_bundle):
    return triform.load(float_bundle)


def after(model, ids):
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, -1].numpy()


@pytest.mark.parametrize(("keep", "prompt"), [(0, 4), (3, 10), (5, 16), (3, 40), (14, 20)])
def test_logits_after_a_shift_equal_a_recomputation(decoder, model, keep, prompt):
    """A context of 16, for 30 tokens, written out: when it is full, the first stay and half of the rest."""
    context = 16
    ids = [int(one) for one in np.random.default_rng(0).integers(6, 400, prompt + 30)]
    step = ShiftingStep(decoder._step, context, keep)
    decoder.forget()
    held = ids[:prompt]
    if prompt >= context:
        held = held[:keep] + held[-((context - keep) // 2) :]
    found, shifts = step.prefill(ids[:prompt]), 0
    for token in ids[prompt:]:
        expected = after(model, held)
        assert np.abs(found - expected).max() < 5e-4 * np.abs(expected).max()
        held = [*held, token]
        if len(held) > context:
            held, shifts = held[:keep] + held[-((context - keep) // 2) :], shifts + 1
        found = step.next(token)
        assert decoder._step.ids == held
    assert shifts >= 1


def test_a_generation_goes_on_beyond_the_context(decoder, model):
    limit, keep = decoder.manifest.max_length, 20
    prompt = "The ferry left the harbor. " * 30
    ids = decoder._prompts.text_ids(prompt)
    assert limit - 30 > len(ids) > limit / 2
    count = limit - len(ids) + 60
    options = GenerationOptions(max_new_tokens=count, keep=keep, min_new_tokens=count, **SHIFT)
    found = decoder.generate(prompt, options, raw=True)
    assert (len(found.token_ids), found.finish_reason) == (count, "length")
    whole = [*ids, *found.token_ids]
    # The first token that does not fit is the one after `limit`; then half of what is not kept is dropped.
    first = limit + 1
    start = first - (limit - keep) // 2
    for length in (first, first + 1, first + 40):
        logits = after(model, whole[:keep] + whole[start:length])
        logits[decoder.manifest.tokens.eos] = -np.inf
        assert whole[length] == logits.argmax()


def test_a_prompt_longer_than_the_context(decoder, model):
    limit, keep = decoder.manifest.max_length, 7
    prompt = "The ferry left the harbor. " * 150
    ids = decoder._prompts.text_ids(prompt)
    assert len(ids) > limit
    found = decoder.generate(prompt, GenerationOptions(max_new_tokens=1, keep=keep, **SHIFT), raw=True)
    assert found.token_ids == (after(model, ids[:keep] + ids[-((limit - keep) // 2) :]).argmax(),)


def test_speculation_does_not_change_what_is_kept(decoder):
    prompt = "The ferry left the harbor. " * 30
    found = [
        decoder.generate(prompt, GenerationOptions(max_new_tokens=300, speculate=one, **SHIFT), raw=True).token_ids
        for one in ("off", "lookup")
    ]
    assert found[0] == found[1]


def test_without_it_the_context_is_the_end(decoder):
    prompt = "The ferry left the harbor. " * 30
    found = decoder.generate(
        prompt, GenerationOptions(max_new_tokens=2000, temperature=0, min_new_tokens=2000), raw=True
    )
    assert found.finish_reason == "length"
    assert found.prompt_tokens + len(found.token_ids) == decoder.manifest.max_length
    with pytest.raises(InputError, match="context is 640, answer included; shorten it, or see `on_overflow`"):
        decoder.generate(prompt * 4, raw=True)


def test_what_cannot_be(decoder):
    with pytest.raises(InputError, match="`keep` 639 leaves no room in the model's context of 640"):
        decoder.generate("a", GenerationOptions(max_new_tokens=1, keep=639, **SHIFT))
    with pytest.raises(InputError, match="give `max_new_tokens` too"):
        decoder.generate("a", GenerationOptions(**SHIFT))
