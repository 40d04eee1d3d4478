"""A user's options beside the model's: whose count, and what holds where neither is set."""

from __future__ import annotations

import dataclasses

import pytest

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.generation.options.defaults import Lengths, lengths_of, with_defaults
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation


def settled(options=None, **defaults):
    return with_defaults(options or GenerationOptions(), GenerationDefaults(**defaults))


def sampling(options=None, **defaults):
    found = settled(options, **defaults)
    return found.temperature, found.top_k, found.top_p


GREEDY = (0.0, None, None)


@pytest.mark.parametrize(
    ("options", "defaults", "expected"),
    [
        # Nobody asks for sampling, or one of both.
        ({}, {}, GREEDY), ({}, {"temperature": 0.7, "top_k": 5}, GREEDY), ({}, {"do_sample": False}, GREEDY),
        ({}, {"do_sample": True}, (1.0, 50, None)), ({}, {"do_sample": True, "temperature": 0.0}, GREEDY),
        ({}, {"do_sample": True, "temperature": 0.7, "top_k": 5, "top_p": 0.9}, (0.7, 5, 0.9)),
        ({}, {"do_sample": True, "top_k": 0, "top_p": 0.0}, (1.0, 0, 1e-9)),
        ({"temperature": 0.5}, {}, (0.5, 50, None)), ({"top_k": 7}, {}, (1.0, 7, None)),
        ({"top_p": 0.5}, {}, (1.0, 50, 0.5)),
        ({"top_k": 7}, {"temperature": 0.3}, (0.3, 7, None)), ({"top_k": 7}, {"temperature": 0.0}, (1.0, 7, None)),
        ({"top_k": 0, "top_p": 1.0}, {"do_sample": True, "top_k": 9, "top_p": 0.4}, (1.0, 0, 1.0)),
        ({"temperature": 0}, {"do_sample": True}, GREEDY), ({"temperature": 0.0}, {"do_sample": True}, GREEDY),
        ({"penalty_alpha": 0.5, "top_k": 4}, {"do_sample": True}, (0.0, 4, None)),
        ({"truncation": Truncation(min_p=0.1)}, {}, (1.0, 50, None)),
        # Mirostat replaces every other truncation.
        ({"truncation": Truncation(mirostat_tau=5.0)}, {"top_k": 9, "top_p": 0.4}, (1.0, None, None)),
    ],
)  # fmt: skip
def test_sampling(options, defaults, expected):
    assert sampling(GenerationOptions(**options), **defaults) == expected


def test_a_top_p_of_the_model_is_above_0():
    assert settled(do_sample=True, top_p=1e-12).top_p == 1e-9 and settled(do_sample=True, top_p=2e-9).top_p == 2e-9


@pytest.mark.parametrize("name", ["min_p", "typical_p", "epsilon_cutoff", "eta_cutoff"])
def test_truncation(name):
    assert getattr(settled(do_sample=True, **{name: 0.25}).truncation, name) == 0.25
    own = GenerationOptions(truncation=Truncation(**{name: 0.5}))
    assert getattr(settled(own, **{name: 0.25}).truncation, name) == 0.5
    # Nothing is filled in where the most likely token is taken.
    assert settled(**{name: 0.25}).truncation == Truncation()


def test_a_typical_p_of_0_is_off():
    assert settled(do_sample=True, typical_p=0.0).truncation.typical_p is None
    assert settled(do_sample=True, min_p=0.0).truncation.min_p == 0.0


@pytest.mark.parametrize(
    ("name", "value", "own"),
    [
        ("repetition_penalty", 1.25, 1.0), ("encoder_repetition_penalty", 1.25, 1.0), ("no_repeat_ngram_size", 3, 0),
        ("encoder_no_repeat_ngram_size", 3, 0),
    ],
)  # fmt: skip
def test_penalties(name, value, own):
    assert getattr(settled(**{name: value}).penalties, name) == value
    given = GenerationOptions(penalties=Penalties(**{name: own}))
    assert getattr(settled(given, **{name: value}).penalties, name) == own


def test_a_growing_end():
    found = settled(exponential_decay_length_penalty=[3.0, 1.5]).penalties.exponential_decay_length_penalty
    assert found == (3, 1.5) and isinstance(found[0], int)
    own = GenerationOptions(penalties=Penalties(exponential_decay_length_penalty=(7, 2.0)))
    assert settled(own, exponential_decay_length_penalty=[3, 1.5]).penalties == own.penalties
    assert settled().penalties == Penalties()


@pytest.mark.parametrize(
    ("name", "given", "found", "own"),
    [
        ("bad_words_ids", [[1, 2], [3]], ((1, 2), (3,)), ()), ("suppress_tokens", [1, 2], (1, 2), ()),
        ("begin_suppress_tokens", [1, 2], (1, 2), ()), ("forced_bos_token_id", 5, 5, 0),
        ("forced_eos_token_id", [5], (5,), ()),
    ],
)  # fmt: skip
def test_constraints(name, given, found, own):
    assert getattr(settled(**{name: given}).constraints, name) == found
    options = GenerationOptions(constraints=Constraints(**{name: own}))
    assert getattr(settled(options, **{name: given}).constraints, name) == own


def test_texts_that_end_an_answer():
    assert settled(stop_strings=["a", "b"]).stop == ("a", "b")
    assert settled(GenerationOptions(stop=("c",)), stop_strings=["a"]).stop == ("c",)


def test_what_is_not_of_the_model_stays():
    options = GenerationOptions(max_new_tokens=5, seed=3, logprobs=2, temperature=0)
    found = settled(options, min_new_tokens=7, max_new_tokens=9)
    names = ("max_new_tokens", "min_new_tokens", "seed", "logprobs")
    assert [getattr(found, name) for name in names] == [5, None, 3, 2]


def limits(least=None, most=None, shortest=None, longest=None, given=False):
    return Lengths(least, most, shortest, longest, given)


@pytest.mark.parametrize(
    ("lengths", "prompt", "expected"),
    [
        (limits(), 3, (None, None)), (limits(2, 5), 3, (2, 5)), (limits(shortest=5), 3, (2, None)),
        (limits(shortest=5), 5, (0, None)), (limits(shortest=5), 9, (0, None)), (limits(2, shortest=9), 3, (2, None)),
        (limits(longest=5), 3, (None, 2)), (limits(longest=5), 4, (None, 1)), (limits(longest=5), 5, (None, None)),
        (limits(longest=5), 6, (None, None)), (limits(most=4, longest=5), 3, (None, 4)),
        # The user's limit counts, whichever it is.
        (limits(8, 5, given=True), 3, (5, 5)), (limits(8, 5, given=False), 3, (8, 8)),
        (limits(5, 5, given=True), 3, (5, 5)),
        (limits(shortest=12, most=5, given=True), 3, (5, 5)), (limits(least=5, longest=6), 3, (5, 5)),
        (limits(0, 5), 3, (0, 5)),
    ],
)  # fmt: skip
def test_lengths_of_an_answer(lengths, prompt, expected):
    assert lengths.after(prompt) == expected


def test_whose_lengths_count():
    defaults = GenerationDefaults(min_new_tokens=1, max_new_tokens=20, min_length=3, max_length=30)
    assert lengths_of(GenerationOptions(), defaults) == limits(1, 20, 3, 30)
    own = GenerationOptions(min_new_tokens=0, max_new_tokens=4)
    assert lengths_of(own, defaults) == limits(0, 4, 3, 30, given=True)
    assert lengths_of(GenerationOptions(min_new_tokens=2), defaults).given is False
    assert dataclasses.astuple(lengths_of(own, GenerationDefaults())) == (0, 4, None, None, True)
