"""Which options make a processor: each value that changes logits, and none that leaves them as they are."""

from __future__ import annotations

import numpy as np
import pytest

from triform.runtime.errors import InputError
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation
from triform.runtime.generation.processors.build import ProcessorContext, build_processors
from triform.runtime.generation.processors.contract import Temperature


def count(options, *, drawn=True, encoder_ids=None, **more):
    generator = np.random.default_rng(0) if drawn else None
    row = ProcessorContext(3, 20, 11, eos=(2,), generator=generator, encoder_ids=encoder_ids, **more)
    return len(build_processors(options, row))


# By option, a value that cuts nothing off and one that may.
TRUNCATIONS = {
    "min_p": (0, 1e-9), "typical_p": (1, 0.99), "top_n_sigma": (None, 1), "mirostat_tau": (None, 1),
    "epsilon_cutoff": (0, 1e-9), "eta_cutoff": (0, 1e-9),
}  # fmt: skip


@pytest.mark.parametrize(
    ("off", "on"),
    [
        (GenerationOptions(), GenerationOptions(temperature=0.5)),
        (GenerationOptions(temperature=1), GenerationOptions(temperature=2)),
        (GenerationOptions(top_k=0), GenerationOptions(top_k=1)),
        (GenerationOptions(top_p=1), GenerationOptions(top_p=0.99)),
        *(
            (
                GenerationOptions(truncation=Truncation(**{name: 1})),
                GenerationOptions(truncation=Truncation(**{name: 0.9})),
            )
            for name in ("epsilon_cutoff", "eta_cutoff")
        ),
        *(
            tuple(GenerationOptions(truncation=Truncation(**{name: value})) for value in values)
            for name, values in TRUNCATIONS.items()
        ),
    ],
)
def test_sampling(off, on):
    assert (count(off), count(on)) == (0, 1)
    # Greedy answers draw nothing.
    assert count(on, drawn=False) == 0


@pytest.mark.parametrize(
    ("name", "off", "on"),
    [
        ("repetition_penalty", 1, 2), ("frequency_penalty", 0, 1), ("presence_penalty", 0, -1),
        ("no_repeat_ngram_size", 0, 1), ("dry_multiplier", 0, 1), ("exponential_decay_length_penalty", None, (0, 1.5)),
    ],
)  # fmt: skip
def test_penalties(name, off, on):
    assert count(GenerationOptions(penalties=Penalties(**{name: off}))) == 0
    assert count(GenerationOptions(penalties=Penalties(**{name: on})), drawn=False) == 1


@pytest.mark.parametrize(
    ("name", "off", "on"), [("encoder_repetition_penalty", 1, 2), ("encoder_no_repeat_ngram_size", 0, 1)]
)
def test_penalties_for_the_encoders_tokens(name, off, on):
    ids = np.array([5, 6])
    assert count(GenerationOptions(penalties=Penalties(**{name: off})), encoder_ids=ids) == 0
    assert count(GenerationOptions(penalties=Penalties(**{name: on})), encoder_ids=ids) == 1
    # Without an encoder there is nothing to look at.
    assert count(GenerationOptions(penalties=Penalties(**{name: on}))) == 0


@pytest.mark.parametrize(
    "values",
    [
        {"logit_bias": {3: 1.0}}, {"bad_words_ids": [[3]]}, {"forced_bos_token_id": 0}, {"forced_eos_token_id": [2]},
        {"forced_tokens": {0: 4}}, {"suppress_tokens": [0]}, {"begin_suppress_tokens": [0]},
    ],
)  # fmt: skip
def test_constraints(values):
    assert count(GenerationOptions(constraints=Constraints(**values)), drawn=False) == 1


def test_a_shortest_length_needs_an_end():
    assert [count(GenerationOptions(), min_new_tokens=number) for number in (0, 1)] == [0, 1]
    row = ProcessorContext(3, 20, 11, min_new_tokens=1)
    assert build_processors(GenerationOptions(), row) == []


def test_defaults_of_dry_and_mirostat():
    """text-generation-webui's base 1.75 and length 2, and the paper's rate of 0.1: as if they were given."""
    logits = np.linspace(0, 3, 11, dtype=np.float32)
    ids = np.array([5, 6, 7, 8, 5, 6, 7])
    for group, left_out, given in (
        ("penalties", {"dry_multiplier": 0.8}, {"dry_base": 1.75, "dry_allowed_length": 2}),
        ("truncation", {"mirostat_tau": 2.0}, {"mirostat_eta": 0.1}),
    ):
        kind = {"penalties": Penalties, "truncation": Truncation}[group]
        rows = []
        for values in (left_out, left_out | given):
            row = ProcessorContext(1, 20, 11, generator=np.random.default_rng(1))
            (step,) = build_processors(GenerationOptions(**{group: kind(**values)}), row)
            first = step(ids, logits.copy())
            rows.append([first, step(np.append(ids, 9), logits.copy())])
        np.testing.assert_array_equal(rows[0], rows[1])
        assert not np.array_equal(rows[0][0], logits)


def test_a_given_length_of_dry():
    """Three tokens were repeated: 0.8 * 1.75 ** (3 - 3)."""
    options = GenerationOptions(penalties=Penalties(dry_multiplier=0.8, dry_allowed_length=3))
    (step,) = build_processors(options, ProcessorContext(1, 20, 11))
    found = step(np.array([5, 6, 7, 8, 5, 6, 7]), np.zeros(11, np.float32))
    assert found[8] == np.float32(-0.8) and np.count_nonzero(found) == 1


def test_forced_tokens_are_counted_from_the_answer():
    options = GenerationOptions(constraints=Constraints(forced_tokens={2: 4}))
    (step,) = build_processors(options, ProcessorContext(3, 20, 11))
    forced = [length for length in range(9) if step(np.zeros(length, np.int64), np.ones(11, np.float32)).min() < 0]
    assert forced == [5]


@pytest.mark.parametrize(
    ("prompt", "forced_bos", "begin"), [(1, None, 1), (1, 0, 2), (2, None, 2), (2, 0, 2), (0, 0, 1), (0, None, 0)]
)
def test_where_an_answer_begins(prompt, forced_bos, begin):
    """transformers' GenerationMixin: behind a forced first token, if the prompt has one token at most."""
    values = Constraints(begin_suppress_tokens=[3], forced_bos_token_id=forced_bos)
    *_, step = build_processors(GenerationOptions(constraints=values), ProcessorContext(prompt, 20, 11))
    banned = [length for length in range(6) if step(np.zeros(length, np.int64), np.ones(11, np.float32))[3] < 0]
    assert banned == [begin]


def test_an_order_of_steps_that_are_off_is_refused():
    row = ProcessorContext(1, 20, 11, generator=np.random.default_rng(0))
    both = ("top-k", "temperature")
    for values, said in (({}, "nothing"), ({"top_k": 3}, "top-k"), ({"temperature": 0.5}, "temperature")):
        with pytest.raises(InputError, match=f"orders {said}, and all other steps that it names are off"):
            build_processors(GenerationOptions(order=both, **values), row)
    assert len(build_processors(GenerationOptions(order=both, top_k=3, temperature=0.5), row)) == 2
    for order in ((), both, both[::-1]):
        steps = build_processors(GenerationOptions(order=order, top_k=3, temperature=0.5), row)
        first = "top-k" if order == both else "temperature"
        assert isinstance(steps[0], Temperature) == (first == "temperature")
