"""What is drawn follows the exact distribution, seeds repeat, and the order of steps is transformers'."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, GenerationConfig

from triform.export.describe.generation_defaults import generation_defaults
from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.errors import BundleError, InputError
from triform.runtime.generation.options.defaults import lengths_of, with_defaults
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation
from triform.runtime.generation.options.step_order import ORDER, reordered
from triform.runtime.generation.processors.build import ProcessorContext, build_processors
from triform.runtime.generation.processors.contract import Temperature
from triform.runtime.generation.sampling import draw, greedy, make_sampler, process, row_generator, wanted
from triform.runtime.likeliest import NOTHING, Likeliest

NO_IDS = np.zeros(0, np.int64)
# 99.9 % quantiles of chi-square by degrees of freedom, from a table.
CHI_SQUARE = {4: 18.467, 10: 29.588, 49: 85.351}


def sampler_of(options, vocab_size, prompt_length=0, eos=(), index=0):
    settled = with_defaults(options, GenerationDefaults())
    generator = row_generator(settled.seed, index) if settled.temperature else None
    row = ProcessorContext(
        prompt_length, 10_000, vocab_size, eos, generator, min_new_tokens=options.min_new_tokens or 0
    )
    return make_sampler(build_processors(settled, row), generator)


def chi_square(counts, probabilities):
    expected = counts.sum() * probabilities
    return ((counts - expected) ** 2 / expected).sum()


def test_frequencies_follow_the_distribution():
    logits = np.array([0.0, 1.0, -1.0, 2.0, 0.5], np.float32)
    sampler = sampler_of(GenerationOptions(temperature=1.5, seed=7), 5)
    counts = np.bincount([sampler(NO_IDS, logits) for _ in range(200_000)], minlength=5)
    weights = np.exp(logits.astype(np.float64) / 1.5)
    assert chi_square(counts, weights / weights.sum()) < CHI_SQUARE[4]


def test_frequencies_of_a_truncated_distribution():
    logits = np.log(np.arange(1, 21)).astype(np.float32)
    sampler = sampler_of(GenerationOptions(temperature=1.0, top_k=12, top_p=0.9, seed=3), 20)
    counts = np.bincount([sampler(NO_IDS, logits) for _ in range(20_000)], minlength=20)
    # Top-k leaves the weights 9 to 20, 174 in all. 90 % of that is 156.6: from 20 down to 11 it is 155, with 10 165.
    assert counts[:9].sum() == 0
    left = np.arange(10, 21)
    assert chi_square(counts[9:], left / left.sum()) < CHI_SQUARE[10]


def test_draws_from_a_large_vocabulary_follow_the_distribution():
    """Fifty stretches of equal probability, in which tokens are not equally likely."""
    weights = np.tile(np.linspace(0, 2, 400), 50).astype(np.float32)
    generator = np.random.default_rng(11)
    found = np.array([draw(weights, generator.random()) for _ in range(20_000)])
    assert chi_square(np.bincount(found // 400, minlength=50), np.full(50, 1 / 50)) < CHI_SQUARE[49]
    # Within a stretch the likelihood rises from 0: the share of the lower half is a quarter.
    assert np.mean(found % 400 < 200) == pytest.approx(0.25, abs=0.012)


@given(st.lists(st.sampled_from([0.0, 0.0, 1.0, 3.0]), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True))
def test_a_draw_lands_where_the_cumulative_sum_says(weights, uniform):
    if not sum(weights):
        weights = [*weights, 1.0]
    for repeated in (1, 300):
        # 300 times as long, the array is dealt with in blocks; half of it has no weight at all.
        array = np.array(weights * repeated + [0.0] * (repeated > 1) * 5000)
        index = draw(array, uniform)
        ends = np.cumsum(array)
        assert array[index] > 0
        assert ends[index] >= uniform * ends[-1] * (1 - 1e-12)
        assert index == 0 or ends[index] - array[index] <= uniform * ends[-1] * (1 + 1e-12)


@settings(max_examples=20)
@given(st.integers(0, 2**64 - 1), st.integers(0, 50))
def test_a_seed_repeats_in_any_batch(seed, index):
    logits = np.linspace(-1, 1, 50, dtype=np.float32)
    options = GenerationOptions(temperature=1.0, seed=seed)
    first, second = (sampler_of(options, 50, index=index) for _ in range(2))
    expected = [first(NO_IDS, logits) for _ in range(10)]
    assert [second(NO_IDS, logits) for _ in range(10)] == expected
    # One number is drawn for a token, from Philox keyed by seed and row: anyone can draw the same.
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))
    ends = np.cumsum(np.exp(logits.astype(np.float64)))
    assert [int(np.searchsorted(ends, generator.random() * ends[-1])) for _ in range(10)] == expected


def test_rows_of_a_seed_differ():
    logits = np.zeros(1000, np.float32)
    rows = [sampler_of(GenerationOptions(temperature=1, seed=1), 1000, index=index) for index in range(20)]
    assert len({row(NO_IDS, logits) for row in rows}) > 15


EVERYTHING = GenerationOptions(
    max_new_tokens=50,
    temperature=0.8,
    top_k=30,
    top_p=0.9,
    seed=5,
    min_new_tokens=3,
    truncation=Truncation(0.01, 0.9, 3.0, 0.001, 0.001, 0.1, 0.5),
    penalties=Penalties(
        repetition_penalty=1.2, frequency_penalty=0.1, presence_penalty=0.1, no_repeat_ngram_size=4, dry_multiplier=0.5,
        exponential_decay_length_penalty=(5, 1.1),
    ),
    constraints=Constraints(
        logit_bias={3: 1.0}, bad_words_ids=((4, 5),), suppress_tokens=(6,), begin_suppress_tokens=(7,),
        forced_tokens={2: 9}, forced_eos_token_id=(1,), forced_bos_token_id=8,
    ),
)  # fmt: skip


@pytest.mark.parametrize("vocab_size", [60, 9000])
def test_a_sampler_draws_what_its_processors_leave(vocab_size):
    """It narrows the tokens down as it goes; the processors by themselves work on all of them."""
    ids = np.array([3, 4, 3, 4, 3, 10, 11])
    for seed in range(30):
        logits = (np.random.default_rng(seed).standard_normal(vocab_size) * 4).astype(np.float32)
        one, two = row_generator(seed, 0), row_generator(seed, 0)
        steps = [
            build_processors(EVERYTHING, ProcessorContext(5, 50, vocab_size, (1, 2), generator))
            for generator in (one, two)
        ]
        left = process(steps[1], ids, logits).astype(np.float64)
        ends = np.cumsum(np.exp(left - left.max()))
        expected = int(np.searchsorted(ends, two.random() * ends[-1]))
        assert make_sampler(steps[0], one)(ids, logits) == expected


def test_the_order_is_that_of_transformers(checkpoint):
    config = GenerationConfig(
        do_sample=True, temperature=0.5, top_k=5, top_p=0.5, min_p=0.1, typical_p=0.5, epsilon_cutoff=0.1,
        eta_cutoff=0.1, repetition_penalty=2.0, encoder_repetition_penalty=2.0, no_repeat_ngram_size=2,
        encoder_no_repeat_ngram_size=2, bad_words_ids=[[5]], min_new_tokens=5, forced_bos_token_id=1,
        forced_eos_token_id=2, exponential_decay_length_penalty=(5, 2.0), suppress_tokens=[3],
        begin_suppress_tokens=[4], sequence_bias=[[[6], 1.0]], eos_token_id=2,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    import torch

    config._eos_token_tensor = torch.tensor([2])
    theirs = model._get_logits_processor(config, 5, torch.ones(1, 5, dtype=torch.long))
    kinds = {"SequenceBias": "logit-bias", "NoRepeatNGram": "no-repeat-ngram", "MinNewTokensLength": "min-length",
             "EncoderNoRepeatNGram": "encoder-no-repeat-ngram", "NoBadWords": "bad-words",
             "ForcedBOSToken": "forced-bos",
             "ForcedEOSToken": "forced-eos", "ExponentialDecayLengthPenalty": "exponential-decay",
             "SuppressTokensAtBegin": "begin-suppress-tokens", "Epsilon": "epsilon-cutoff", "Eta": "eta-cutoff",
             "Typical": "typical-p"}  # fmt: skip
    names = [re.sub("Logits(Processor|Warper)$", "", type(one).__name__) for one in theirs]
    expected = [kinds.get(name) or re.sub("(?<=.)([A-Z])", r"-\1", name).lower() for name in names]
    assert len(expected) == 19
    assert [step for step in ORDER if step in expected] == expected


def test_another_order():
    assert reordered(()) == list(ORDER)
    swapped = reordered(("top-p", "temperature"))
    assert (swapped[ORDER.index("temperature")], swapped[ORDER.index("top-p")]) == ("top-p", "temperature")
    assert sorted(swapped) == sorted(ORDER)
    # At a temperature of 10 the nucleus of 0.5 is wide; found before dividing, it is the first token alone.
    logits = np.array([5.0, 3, 3, 3, 3, 3], np.float32)
    options = {"temperature": 10.0, "top_p": 0.5, "seed": 1}
    after = sampler_of(GenerationOptions(**options), 6)
    before = sampler_of(GenerationOptions(**options, order=("top-p", "temperature")), 6)
    assert len({after(NO_IDS, logits) for _ in range(100)}) > 2
    assert {before(NO_IDS, logits) for _ in range(100)} == {0}


# What a generation config says, and what a user asks for besides.
OWN = ({}, {"temperature": 0.7, "top_k": 3, "min_p": 0.1}, {"top_p": 0.6, "typical_p": 0.7}, {"top_k": 0})
ASKED = (
    {"temperature": 0.7}, {"top_p": 0.5}, {"top_k": 0}, {"top_k": 7, "temperature": 2.0}, {"min_p": 0.2},
    {"typical_p": 0.5}, {"epsilon_cutoff": 0.1, "eta_cutoff": 0.2}, {"top_p": 1.0},
)  # fmt: skip
CUTS = ("min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


@pytest.mark.parametrize("asked", [{}, *ASKED])
@pytest.mark.parametrize("own", OWN)
def test_sampling_is_completed_as_transformers_does(checkpoint, own, asked):
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    model.generation_config = GenerationConfig(do_sample=True, **own)
    expected, _ = model._prepare_generation_config(None, **asked)
    cuts = Truncation(**{name: value for name, value in asked.items() if name in CUTS})
    options = GenerationOptions(**{name: value for name, value in asked.items() if name not in CUTS}, truncation=cuts)
    found = with_defaults(options, generation_defaults(model.generation_config))
    assert (found.temperature, found.top_k) == (expected.temperature, expected.top_k)
    off = {"top_p": 1.0, "typical_p": 1.0, "min_p": 0.0, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0}
    for name, value in off.items():
        ours = getattr(found if name == "top_p" else found.truncation, name)
        theirs = getattr(expected, name)
        assert (value if ours is None else ours) == (value if theirs is None else theirs), name


def test_every_default_of_transformers_is_followed_or_has_no_effect():
    """Fields that a release of transformers adds, or whose default it changes, have to be looked at."""
    followed = {"temperature": 1.0, "top_k": 50, "early_stopping": False, "num_beams": 1, "length_penalty": 1.0}
    off = {
        "min_length": 0, "do_sample": False, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0,
        "no_repeat_ngram_size": 0, "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "num_return_sequences": 1,
        "forced_bos_token_id": None, "forced_eos_token_id": None, "exponential_decay_length_penalty": None,
        "suppress_tokens": None, "begin_suppress_tokens": None, "epsilon_cutoff": 0.0, "eta_cutoff": 0.0,
        "encoder_repetition_penalty": 1.0, "num_beam_groups": 1, "diversity_penalty": 0.0,
    }  # fmt: skip
    not_followed = {"max_length": 20}
    how_it_is_run = {
        "use_cache", "output_scores", "return_dict_in_generate", "remove_invalid_values", "num_assistant_tokens",
        "num_assistant_tokens_schedule", "assistant_confidence_threshold", "assistant_lookbehind", "target_lookbehind",
    }  # fmt: skip
    theirs = GenerationConfig._get_default_generation_params()
    assert {name: value for name, value in theirs.items() if name not in how_it_is_run} == {
        **followed, **off, **not_followed
    }  # fmt: skip


def test_whether_to_sample():
    sampling = GenerationDefaults(do_sample=True, temperature=0.7, top_k=3, min_p=0.1)
    assert with_defaults(GenerationOptions(temperature=0), sampling).temperature == 0
    assert with_defaults(GenerationOptions(), GenerationDefaults(temperature=9.0)).temperature == 0
    assert with_defaults(GenerationOptions(), GenerationDefaults(do_sample=True, temperature=0.0)).temperature == 0
    found = with_defaults(GenerationOptions(top_p=0.5), GenerationDefaults(temperature=0.0))
    assert (found.temperature, found.top_k, found.top_p) == (1.0, 50, 0.5)
    # Mirostat replaces what the model says too.
    found = with_defaults(GenerationOptions(truncation=Truncation(mirostat_tau=3.0)), sampling)
    assert (found.temperature, found.top_k, found.truncation) == (0.7, None, Truncation(mirostat_tau=3.0))


def test_the_models_other_defaults_apply_one_by_one():
    defaults = GenerationDefaults(
        repetition_penalty=1.3, no_repeat_ngram_size=2, suppress_tokens=[5], min_length=9, max_length=20,
        exponential_decay_length_penalty=[3.0, 1.5], stop_strings=["END"], bad_words_ids=[[1, 2]],
    )  # fmt: skip
    found = with_defaults(GenerationOptions(), defaults)
    assert found.penalties == Penalties(
        repetition_penalty=1.3, no_repeat_ngram_size=2, exponential_decay_length_penalty=(3, 1.5)
    )
    assert (found.constraints.suppress_tokens, found.constraints.bad_words_ids) == ((5,), ((1, 2),))
    assert (lengths_of(GenerationOptions(), defaults).after(6), found.stop) == ((3, 14), ("END",))
    off = GenerationOptions(
        max_new_tokens=1,
        stop=("x",),
        penalties=Penalties(repetition_penalty=1.0, no_repeat_ngram_size=0),
        constraints=Constraints(suppress_tokens=()),
    )
    found = with_defaults(off, defaults)
    assert (found.penalties.repetition_penalty, found.penalties.no_repeat_ngram_size) == (1.0, 0)
    assert (found.constraints.suppress_tokens, lengths_of(off, defaults).after(6)[0], found.stop) == ((), 1, ("x",))
    # What the user says of the least holds against the model's most, and a prompt beyond the model's most is no error.
    assert lengths_of(GenerationOptions(min_new_tokens=30), defaults).after(6) == (30, 30)
    assert lengths_of(GenerationOptions(), defaults).after(20) == (0, None)


@pytest.mark.parametrize("options", [GenerationOptions(temperature=0), GenerationOptions(temperature=1.0, top_k=3)])
def test_logits_that_are_no_numbers_are_refused(options):
    for penalties in (Penalties(), Penalties(no_repeat_ngram_size=2)):
        asked = GenerationOptions(temperature=options.temperature, top_k=options.top_k, penalties=penalties)
        for bad in (np.nan, np.inf):
            with pytest.raises(BundleError, match="NaN"):
                sampler_of(asked, 4)(np.array([1, 2, 1]), np.array([0, 1, bad, 2], np.float32))
    with pytest.raises(BundleError, match="NaN"):
        greedy(np.array([0.0, np.nan, 1.0], np.float32))


@pytest.mark.parametrize("temperature", [0, 1])
def test_banning_every_token_is_refused(temperature):
    asked = GenerationOptions(temperature=temperature, constraints=Constraints(suppress_tokens=(0, 1, 2)))
    with pytest.raises(InputError, match="every token is banned"):
        sampler_of(asked, 3)(NO_IDS, np.zeros(3, np.float32))


def test_the_smallest_temperatures_are_greedy():
    logits = np.array([0.0, 3.0, 1.0], np.float32)
    assert {sampler_of(GenerationOptions(temperature=t), 3)(NO_IDS, logits) for t in (0, 1e-320, 1e-9)} == {1}


def likeliest(logits, count):
    """What a device gives of logits."""
    tokens = np.sort(np.argsort(-logits, kind="stable")[:count])
    return Likeliest(int(logits.argmax()), tokens, logits[tokens])


def test_every_step_that_depends_on_ids_is_applied():
    def banned(token):
        return lambda ids, logits: np.where(np.arange(len(logits)) == token, -np.inf, logits)

    bans, cooler = [banned(0), banned(2)], Temperature(0.5)
    for processors in (bans, [*bans, cooler], [cooler, *bans]):
        sampler = make_sampler(processors, row_generator(3, 0))
        assert {sampler(NO_IDS, np.zeros(4, np.float32)) for _ in range(40)} == {1, 3}


@pytest.mark.parametrize("equal", [0, 6])
def test_the_likeliest_tokens_suffice_where_a_sampler_wants_no_more(equal):
    """Of a top-k, also where tokens are as likely as its last; these belong to it."""
    options = GenerationOptions(temperature=0.8, top_k=5, top_p=0.9, seed=3)
    for seed in range(40):
        logits = np.random.default_rng(seed).normal(0, 2, 60).astype(np.float32)
        logits[7 : 7 + equal] = np.sort(logits)[-5]
        row = ProcessorContext(0, 99, 60, generator=row_generator(seed, 0))
        processors = build_processors(options, row)
        count = wanted(processors, row.generator, 60)
        assert 5 + equal <= count < 60
        expected = make_sampler(processors, row_generator(seed, 0))(NO_IDS, logits)
        assert make_sampler(processors, row_generator(seed, 0))(NO_IDS, likeliest(logits, count)) == expected
    assert wanted(processors, row.generator, 8) == 8


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"temperature": 0}, 1),
        ({"temperature": 0, "penalties": Penalties(repetition_penalty=2.0)}, None),
        # What depends on the ids may make any token the likeliest, and these truncations may leave any number.
        ({"temperature": 1, "top_k": 5, "penalties": Penalties(repetition_penalty=2.0)}, None),
        ({"temperature": 1, "top_k": 0}, None),
        ({"temperature": 1, "top_k": 0, "top_p": 0.5}, None),
    ],
)
def test_how_many_of_the_likeliest_tokens_are_wanted(changes, count):
    options = GenerationOptions(**changes)
    generator = row_generator(1, 0) if options.temperature else None
    processors = build_processors(options, ProcessorContext(0, 99, 60, generator=generator))
    assert wanted(processors, generator, 60) == count


def test_the_likeliest_token_alone():
    sampler = make_sampler([], None)
    assert sampler(NO_IDS, Likeliest(7, *NOTHING)) == 7
    for one in (sampler, make_sampler([], row_generator(1, 0))):
        with pytest.raises(BundleError, match="NaN"):
            one(NO_IDS, Likeliest(-1, *NOTHING))


# What a model's defaults may say, other than every option below.
SAID = GenerationDefaults(
    do_sample=True, temperature=0.3, top_k=7, top_p=0.2, min_p=0.3, typical_p=0.4, epsilon_cutoff=0.01,
    eta_cutoff=0.02, repetition_penalty=1.7, encoder_repetition_penalty=1.8, no_repeat_ngram_size=9,
    encoder_no_repeat_ngram_size=8, exponential_decay_length_penalty=[3, 1.9], bad_words_ids=[[20, 21]],
    suppress_tokens=[22], begin_suppress_tokens=[23], forced_bos_token_id=24, forced_eos_token_id=[25],
    stop_strings=["said"],
)  # fmt: skip


def test_what_the_user_asks_for_comes_before_what_the_model_says():
    asked = dataclasses.replace(
        EVERYTHING,
        stop=("asked",),
        penalties=dataclasses.replace(
            EVERYTHING.penalties, encoder_repetition_penalty=1.5, encoder_no_repeat_ngram_size=2
        ),
    )
    assert with_defaults(asked, SAID) == asked
    # 0 and an empty list are asked for, too.
    nothing = Penalties(repetition_penalty=1, no_repeat_ngram_size=0, exponential_decay_length_penalty=(0, 1.0))
    found = with_defaults(
        GenerationOptions(penalties=nothing, top_k=0, constraints=Constraints(suppress_tokens=())), SAID
    )
    assert (found.penalties.repetition_penalty, found.penalties.no_repeat_ngram_size, found.top_k) == (1, 0, 0)
    assert found.penalties.exponential_decay_length_penalty == (0, 1.0)
    assert found.constraints.suppress_tokens == ()


def test_what_nobody_asks_for_is_what_the_model_says():
    found = with_defaults(GenerationOptions(), SAID)
    assert (found.temperature, found.top_k, found.top_p, found.stop) == (0.3, 7, 0.2, ("said",))
    truncation, penalties, constraints = found.truncation, found.penalties, found.constraints
    cuts = (truncation.min_p, truncation.typical_p, truncation.epsilon_cutoff, truncation.eta_cutoff)
    assert cuts == (0.3, 0.4, 0.01, 0.02)
    assert (penalties.repetition_penalty, penalties.encoder_repetition_penalty) == (1.7, 1.8)
    assert (penalties.no_repeat_ngram_size, penalties.encoder_no_repeat_ngram_size) == (9, 8)
    assert penalties.exponential_decay_length_penalty == (3, 1.9)
    assert (constraints.bad_words_ids, constraints.suppress_tokens) == (((20, 21),), (22,))
    assert (constraints.begin_suppress_tokens, constraints.forced_bos_token_id) == ((23,), 24)
    assert constraints.forced_eos_token_id == (25,)
