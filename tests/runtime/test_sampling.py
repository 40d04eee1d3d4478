"""Each processor against transformers on the same logits; frequencies against the exact distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TopKLogitsWarper, TopPLogitsWarper

from triform.runtime.errors import InputError, TriformError
from triform.runtime.manifest import GenerationDefaults
from triform.runtime.options import GenerationOptions
from triform.runtime.sampling import greedy, keep_top_k, keep_top_p, make_sampler, softmax

NO_DEFAULTS = GenerationDefaults()
LOGITS = st.lists(st.floats(-20, 20, width=32), min_size=2, max_size=60)


def kept_by(warper, logits):
    scores = warper(None, torch.tensor([logits], dtype=torch.float64))[0]
    return set(torch.isfinite(scores).nonzero().flatten().tolist())


@given(LOGITS, st.integers(1, 70))
def test_top_k_keeps_what_transformers_keeps(logits, k):
    tokens, _ = keep_top_k(np.array(logits, np.float32), k)
    assert set(tokens.tolist()) == kept_by(TopKLogitsWarper(k), logits)


@given(LOGITS, st.floats(0.05, 0.99))
def test_top_p_keeps_what_transformers_keeps(logits, p):
    probabilities = softmax(np.array(logits, np.float32))
    tokens, _ = keep_top_p(np.arange(len(logits)), probabilities, p)
    expected = kept_by(TopPLogitsWarper(p), logits)
    # Where several tokens are equally likely at the edge, any of them is a right answer.
    assert sorted(probabilities[tokens]) == pytest.approx(sorted(probabilities[list(expected)]), rel=1e-6)


def test_frequencies_follow_the_distribution():
    logits = np.array([0.0, 1.0, -1.0, 2.0, 0.5], np.float32)
    sampler = make_sampler(GenerationOptions(temperature=1.5, seed=7), NO_DEFAULTS)
    draws = 50_000
    counts = np.bincount([sampler(logits) for _ in range(draws)], minlength=5)
    weights = np.exp(logits.astype(np.float64) / 1.5)
    expected = draws * weights / weights.sum()
    # 99.9 % quantile of chi-square with 4 degrees of freedom.
    assert ((counts - expected) ** 2 / expected).sum() < 18.47


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_a_seed_repeats(seed):
    logits = np.linspace(-1, 1, 50, dtype=np.float32)
    first, second = (make_sampler(GenerationOptions(temperature=1.0, seed=seed), NO_DEFAULTS) for _ in range(2))
    assert [first(logits) for _ in range(10)] == [second(logits) for _ in range(10)]


def test_temperature_zero_is_greedy_whatever_the_model_says():
    sampler = make_sampler(GenerationOptions(temperature=0), GenerationDefaults(do_sample=True, temperature=5.0))
    assert sampler(np.array([0.0, 3.0, 1.0], np.float32)) == 1


def test_the_models_defaults_apply_only_when_nothing_is_asked():
    logits = np.zeros(100, np.float32)
    sampling = GenerationDefaults(do_sample=True, temperature=1.0, top_k=3)
    assert {make_sampler(GenerationOptions(seed=s), sampling)(np.arange(100, dtype=np.float32)) for s in range(60)} <= {
        97, 98, 99,
    }  # fmt: skip
    drawn = {make_sampler(GenerationOptions(temperature=1.0, seed=s), sampling)(logits) for s in range(60)}
    assert len(drawn) > 10
    assert make_sampler(GenerationOptions(), GenerationDefaults(do_sample=False, temperature=9.0))(logits) == 0


def test_nan_logits_are_refused():
    with pytest.raises(TriformError, match="NaN"):
        greedy(np.array([0.0, np.nan, 1.0], np.float32))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"max_new_tokens": 0}, "--max-new-tokens"),
        ({"max_new_tokens": -3}, "--max-new-tokens"),
        ({"temperature": -0.1}, "--temperature"),
        ({"temperature": float("nan")}, "--temperature"),
        ({"temperature": float("inf")}, "--temperature"),
        ({"top_p": float("nan")}, "--top-p"),
        ({"top_p": 0.0}, "--top-p"),
        ({"top_p": 1.1}, "--top-p"),
        ({"top_k": -1}, "--top-k"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_options_out_of_range_are_named(changes, named):
    with pytest.raises(InputError, match=named):
        GenerationOptions(**changes)
