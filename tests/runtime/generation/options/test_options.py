"""Options out of range, of another type, or against each other: one line that names them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.errors import InputError
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation
from triform.runtime.generation.processors.build import ProcessorContext, build_processors
from triform.runtime.generation.processors.contract import ban
from triform.runtime.generation.processors.spelling import Spelled, spell


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (GenerationOptions, {"max_new_tokens": 0}, "`max_new_tokens` must be at least 1, not 0"),
        (GenerationOptions, {"max_new_tokens": -3}, "`max_new_tokens` must be at least 1, not -3"),
        (GenerationOptions, {"max_new_tokens": True}, "`max_new_tokens` must be a whole number, not True"),
        (GenerationOptions, {"min_new_tokens": -1}, "`min_new_tokens` must be 0 or more, not -1"),
        (GenerationOptions, {"temperature": -0.1}, "`temperature` must be 0 or more, not -0.1"),
        (GenerationOptions, {"temperature": float("nan")}, "`temperature` must be a finite number, not nan"),
        (GenerationOptions, {"temperature": float("inf")}, "`temperature` must be a finite number, not inf"),
        (GenerationOptions, {"top_p": float("nan")}, "`top_p` must be a finite number, not nan"),
        (GenerationOptions, {"top_p": 0.0}, "`top_p` must be above 0 and at most 1, not 0.0"),
        (GenerationOptions, {"top_p": 1.1}, "`top_p` must be above 0 and at most 1, not 1.1"),
        (GenerationOptions, {"top_k": -1}, "`top_k` must be 0 or more, not -1"),
        (GenerationOptions, {"top_k": 1.5}, "`top_k` must be a whole number, not 1.5"),
        (GenerationOptions, {"seed": -1}, "`seed` must be between 0 and 18446744073709551615, not -1"),
        (GenerationOptions, {"seed": 2**64}, "`seed` must be between 0 and 18446744073709551615"),
        (GenerationOptions, {"stop": ("",)}, "`stop` must be a text that is not empty"),
        (GenerationOptions, {"stop": "abc"}, "`stop` must be"),
        (GenerationOptions, {"logprobs": -1}, "`logprobs` must be 0 or more"),
        (GenerationOptions, {"speculate": "on"}, "`speculate` must be auto, lookup or off, not 'on'"),
        (GenerationOptions, {"on_overflow": "x"}, "`on_overflow` must be error or shift, not 'x'"),
        (GenerationOptions, {"keep": 3}, "`keep` needs `on_overflow` shift"),
        (GenerationOptions, {"keep": -3, "on_overflow": "shift"}, "`keep` must be 0 or more"),
        (GenerationOptions, {"order": ("top_k",)}, "`order` has no step 'top_k'; the steps are logit-bias, "),
        (GenerationOptions, {"order": ("top-k", "dry", "top-k")}, "`order` names top-k twice"),
        (
            GenerationOptions,
            {"min_new_tokens": 9, "max_new_tokens": 8},
            "`min_new_tokens` 9 is more than `max_new_tok",
        ),
        *(
            (GenerationOptions, {name: wrong}, f"`{name}` must be a {kind.__name__}, not {wrong!r}")
            for name, kind in (("truncation", Truncation), ("penalties", Penalties), ("constraints", Constraints))
            for wrong in (None, "x", {"a": 1})
        ),
        # Each letter would be a text.
        (GenerationOptions, {"order": "top-k"}, "`order` must be a list of texts, not 'top-k'"),
        (GenerationOptions, {"order": None}, "`order` must be a list of texts, not None"),
        (Constraints, {"bad_words": "snow"}, "`bad_words` must be a list of texts, not 'snow'"),
        (Constraints, {"bad_words": (7,)}, "`bad_words` must be a list of texts, not (7,)"),
        (Constraints, {"bad_words": 7}, "`bad_words` must be a list of texts, not 7"),
        (Constraints, {"bad_words_ids": (7,)}, "`bad_words_ids` must be a list of token ids, not 7"),
        (Constraints, {"suppress_tokens": 7}, "`suppress_tokens` must be a list of token ids, not 7"),
        (Constraints, {"forced_eos_token_id": 0}, "`forced_eos_token_id` must be a list of token ids, not 0"),
        (Constraints, {"logit_bias": (7,)}, "`logit_bias` must be a mapping by token id, not (7,)"),
        (Penalties, {"dry_sequence_breakers": "\n:"}, "`dry_sequence_breakers` must be a list of texts, not '\\n:'"),
        (
            Penalties,
            {"exponential_decay_length_penalty": 7},
            "`exponential_decay_length_penalty` must be a position and a factor, not 7",
        ),
        (Truncation, {"min_p": 1.5}, "`min_p` must be between 0 and 1, not 1.5"),
        (Truncation, {"typical_p": 0}, "`typical_p` must be above 0 and at most 1, not 0"),
        (Truncation, {"top_n_sigma": 0}, "`top_n_sigma` must be above 0"),
        (Truncation, {"epsilon_cutoff": -0.1}, "`epsilon_cutoff` must be between 0 and 1"),
        (Truncation, {"eta_cutoff": "x"}, "`eta_cutoff` must be a finite number, not 'x'"),
        (Truncation, {"xtc_threshold": 0.6, "xtc_probability": 1}, "`xtc_threshold` must be above 0 and at most 0.5"),
        (Truncation, {"xtc_threshold": 0.1}, "`xtc_threshold` and `xtc_probability` belong together"),
        (Truncation, {"mirostat_tau": 0}, "`mirostat_tau` must be above 0"),
        (Truncation, {"mirostat_eta": 0.1}, "`mirostat_eta` needs `mirostat_tau`"),
        (Truncation, {"mirostat_tau": 5, "typical_p": 0.5}, "`mirostat_tau` replaces every other truncation, so leave"),
        (Penalties, {"repetition_penalty": 0}, "`repetition_penalty` must be above 0, not 0"),
        (Penalties, {"frequency_penalty": float("inf")}, "`frequency_penalty` must be a finite number"),
        (Penalties, {"no_repeat_ngram_size": -1}, "`no_repeat_ngram_size` must be 0 or more"),
        (Penalties, {"dry_multiplier": -1}, "`dry_multiplier` must be 0 or more"),
        (Penalties, {"dry_base": 2.0}, "`dry_base` needs `dry_multiplier`"),
        (Penalties, {"dry_multiplier": 1, "dry_allowed_length": 0}, "`dry_allowed_length` must be at least 1"),
        (Penalties, {"dry_multiplier": 1, "dry_base": 0.5}, "`dry_base` must be between 1 and 1000"),
        (Penalties, {"exponential_decay_length_penalty": (-1, 2)}, "`exponential_decay_length_penalty` must be 0 or"),
        (Penalties, {"exponential_decay_length_penalty": (1, 0)}, "`exponential_decay_length_penalty` must be above 0"),
        (Constraints, {"logit_bias": {-1: 1.0}}, "`logit_bias` must be a token id of 0 or more, not -1"),
        (Constraints, {"logit_bias": {1: float("nan")}}, "`logit_bias` must be a finite number"),
        (Constraints, {"choices": ("a", "")}, "`choices` must be texts that are not empty, at least one"),
        (Constraints, {"choices": ("a", 1)}, "`choices` must be texts that are not empty, at least one"),
        (Constraints, {"choices": ()}, "`choices` must be texts that are not empty, at least one"),
        (Constraints, {"choices": "ab"}, "`choices` must be texts that are not empty, at least one"),
        (Constraints, {"bad_words": ("",)}, "`bad_words` must not be empty"),
        (Constraints, {"suppress_tokens": (1.5,)}, "`suppress_tokens` must be a whole number"),
        (Constraints, {"forced_tokens": {0: -2}}, "`forced_tokens` must be a token id of 0 or more, not -2"),
    ],
)
def test_options_out_of_range_are_named(kind, changes, message):
    with pytest.raises(InputError) as caught:
        kind(**changes)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "name", "good", "bad"),
    [
        (GenerationOptions, "max_new_tokens", [1, 2**31 - 1], [0, 2**31]),
        (GenerationOptions, "min_new_tokens", [0, 2**31 - 1], [-1, 2**31]),
        (GenerationOptions, "temperature", [0, 1e6], [-1e-9, 1e6 + 1]),
        (GenerationOptions, "top_k", [0, 1], [-1, 2**31]),
        (GenerationOptions, "top_p", [1e-9, 1], [0, 1 + 1e-9]),
        (GenerationOptions, "seed", [0, 2**64 - 1], [-1, 2**64]),
        (GenerationOptions, "logprobs", [0], [-1]),
        (GenerationOptions, "penalty_alpha", [1e-9, 1 - 1e-9], [0, 1]),
        (Truncation, "min_p", [0, 1], [-1e-9, 1 + 1e-9]),
        (Truncation, "typical_p", [1e-9, 1], [0, 1 + 1e-9]),
        (Truncation, "top_n_sigma", [1e-9, 1e6], [0, 1e6 + 1]),
        (Truncation, "epsilon_cutoff", [0, 1], [-1e-9, 1 + 1e-9]),
        (Truncation, "eta_cutoff", [0, 1], [-1e-9, 1 + 1e-9]),
        (Truncation, "xtc_threshold", [1e-9, 0.5], [0, 0.5 + 1e-9]),
        (Truncation, "xtc_probability", [0, 1], [-1e-9, 1 + 1e-9]),
        (Truncation, "mirostat_tau", [1e-9, 1e6], [0, 1e6 + 1]),
        (Truncation, "mirostat_eta", [1e-9, 1e6], [0, 1e6 + 1]),
        (Penalties, "repetition_penalty", [1e-6, 1e6], [1e-7, 1e6 + 1]),
        (Penalties, "encoder_repetition_penalty", [1e-6, 1e6], [1e-7, 1e6 + 1]),
        (Penalties, "frequency_penalty", [-1e6, 0, 1e6], [-1e6 - 1, 1e6 + 1]),
        (Penalties, "presence_penalty", [-1e6, 0, 1e6], [-1e6 - 1, 1e6 + 1]),
        (Penalties, "no_repeat_ngram_size", [0], [-1]),
        (Penalties, "dry_multiplier", [0], [-1e-9]),
        (Penalties, "dry_base", [1, 1000], [1 - 1e-9, 1001]),
        (Penalties, "dry_allowed_length", [1], [0]),
        (Penalties, "exponential_decay_length_penalty", [(0, 1e-9)], [(-1, 1.5), (0, 0)]),
        (Constraints, "logit_bias", [{0: -1e30}, {0: 1e30}], [{0: -1.1e30}, {0: 1.1e30}]),
        (Constraints, "suppress_tokens", [(), (0,)], [(-1,)]),
        (Constraints, "forced_bos_token_id", [0], [-1]),
        (Constraints, "forced_tokens", [{0: 0}], [{-1: 0}, {0: -1}]),
        (Constraints, "bad_words_ids", [((0,),)], [((),), ((-1,),)]),
        (Beams, "length_penalty", [-100, 100], [-101, 101, float("inf")]),
        (Beams, "diversity_penalty", [0, 1e6], [-1e-9, 1e6 + 1, float("nan")]),
    ],
)
def test_a_range_has_the_ends_that_its_description_names(kind, name, good, bad):
    needed = {
        "penalty_alpha": {"top_k": 4}, "xtc_threshold": {"xtc_probability": 1}, "mirostat_eta": {"mirostat_tau": 3},
        "xtc_probability": {"xtc_threshold": 0.25}, "dry_base": {"dry_multiplier": 1},
        "dry_allowed_length": {"dry_multiplier": 1}, "diversity_penalty": {"num_beams": 4, "num_beam_groups": 2},
    }  # fmt: skip
    others = needed.get(name, {})
    for value in good:
        assert getattr(kind(**{name: value}, **others), name) == value
    for value in bad:
        with pytest.raises(InputError, match=name if name != "bad_words_ids" else "bad_words"):
            kind(**{name: value}, **others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0, "truncation": Truncation(mirostat_tau=5)}, "`mirostat_tau` is for sampling, and here"),
        (
            {"temperature": 0, "truncation": Truncation(xtc_threshold=0.1, xtc_probability=0.5)},
            "`xtc_threshold` is for sampling, and here",
        ),
        ({"temperature": 0.0, "top_p": 0.9}, "`top_p` is for sampling, and here"),
        ({"temperature": 0, "truncation": Truncation(min_p=0.1)}, "`min_p` is for sampling, and here"),
        ({"order": ("top-p",)}, "`order` needs two steps or more"),
        ({"top_k": 5, "truncation": Truncation(mirostat_tau=5)}, "so leave out `top_k`"),
        ({"top_p": 0.5, "truncation": Truncation(mirostat_tau=5)}, "so leave out `top_p`"),
    ],
)
def test_contradictions_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        GenerationOptions(**changes)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"logit_bias": {9: 1.0}}, "logit_bias"),
        ({"bad_words_ids": ((1, 9),)}, "bad_words"),
        ({"suppress_tokens": (9,)}, "suppress_tokens"),
        ({"begin_suppress_tokens": (9,)}, "begin_suppress_tokens"),
        ({"forced_bos_token_id": 9}, "forced_bos_token_id"),
        ({"forced_eos_token_id": (9,)}, "forced_eos_token_id"),
        ({"forced_tokens": {0: 9}}, "forced_tokens"),
    ],
)
def test_tokens_beyond_the_vocabulary_are_named(changes, name):
    options = GenerationOptions(temperature=0, constraints=Constraints(**changes))
    with pytest.raises(InputError, match=f"`{name}` names token 9; the vocabulary has 9"):
        spell(options, None, 9, ())


def test_what_is_off_is_not_there():
    options = GenerationOptions(
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        min_new_tokens=0,
        truncation=Truncation(min_p=0, typical_p=1.0, epsilon_cutoff=0, eta_cutoff=0),
        penalties=Penalties(
            repetition_penalty=1.0,
            frequency_penalty=0,
            presence_penalty=0,
            no_repeat_ngram_size=0,
            dry_multiplier=0,
            encoder_repetition_penalty=1.0,
            encoder_no_repeat_ngram_size=0,
        ),
        constraints=Constraints(logit_bias={}, bad_words=(), suppress_tokens=()),
    )
    context = ProcessorContext(1, 10, 9, (2,), np.random.default_rng(0), encoder_ids=np.array([5]))
    assert build_processors(options, context) == []
    # As in transformers' `_get_logits_processor`.
    ones = GenerationOptions(temperature=1.0, truncation=Truncation(epsilon_cutoff=1, eta_cutoff=1))
    assert build_processors(ones, context) == []


@pytest.mark.parametrize(
    ("prompt_length", "changes", "begin"),
    [(1, {"forced_bos_token_id": 3}, 2), (4, {"forced_bos_token_id": 3}, 4), (1, {}, 1), (4, {}, 4)],
)
def test_an_answer_begins_behind_the_token_that_is_forced_upon_it(prompt_length, changes, begin):
    """As transformers' `_get_logits_processor` counts: a forced first token is not where the answer begins."""
    options = GenerationOptions(temperature=0, constraints=Constraints(begin_suppress_tokens=(5,), **changes))
    processors = build_processors(options, ProcessorContext(prompt_length, 10, 9, (2,)))
    for length in range(1, 8):
        ids, logits = np.full(length, 4), np.zeros(9, np.float32)
        for processor in processors:
            logits = processor(ids, logits)
        # A forced token leaves no other, so the fifth is ruled out there too.
        forced = "forced_bos_token_id" in changes and length == 1
        assert (logits[5] == -np.inf) == (length == begin or forced), length


def left_by(options, ids, context, vocab_size=9):
    """Logits of zeros after the processors of a row."""
    logits = np.zeros(vocab_size, np.float32)
    for processor in build_processors(options, context):
        logits = processor(np.array(ids), logits)
    return logits


@pytest.mark.parametrize("prompt", [[4], [4, 4, 4, 4]])
def test_an_answers_lengths_are_counted_from_the_end_of_its_prompt(prompt):
    """An answer of at least two tokens and at most five, whose second is 7, and whose last is one of 2 and 3."""
    options = GenerationOptions(
        temperature=0, constraints=Constraints(forced_tokens={1: 7}, forced_eos_token_id=(2, 3), suppress_tokens=(8,))
    )
    context = ProcessorContext(len(prompt), len(prompt) + 5, 9, (2,), min_new_tokens=2)
    allowed = {0: {0, 1, 3, 4, 5, 6, 7}, 1: {7}, 2: {0, 1, 2, 3, 4, 5, 6, 7}, 3: {0, 1, 2, 3, 4, 5, 6, 7}, 4: {2, 3}}
    for length, tokens in allowed.items():
        logits = left_by(options, [*prompt, *[6] * length], context)
        assert set(np.flatnonzero(np.isfinite(logits)).tolist()) == tokens, length


def test_penalties_of_what_was_generated_leave_out_the_prompt():
    """Token 4 is in the prompt, 5 comes twice behind it and 6 once."""
    context = ProcessorContext(2, 20, 9)
    for name, expected in (("frequency_penalty", [-1.0, -0.5]), ("presence_penalty", [-0.5, -0.5])):
        options = GenerationOptions(temperature=0, penalties=Penalties(**{name: 0.5}))
        assert left_by(options, [4, 4, 5, 6, 5], context).tolist() == [0, 0, 0, 0, 0, *expected, 0, 0]


@pytest.mark.parametrize(
    ("ids", "changes", "lost"),
    [
        # Token 3 followed a match of one, two, three or four tokens.
        ([7, 1, 3, 5, 1], {}, 0),
        ([7, 2, 1, 3, 5, 2, 1], {}, 1),
        ([7, 4, 2, 1, 3, 5, 4, 2, 1], {}, 1.75),
        ([7, 6, 4, 2, 1, 3, 5, 6, 4, 2, 1], {}, 1.75**2),
        ([7, 2, 1, 3, 5, 2, 1], {"dry_allowed_length": 1}, 1.75),
        ([7, 4, 2, 1, 3, 5, 4, 2, 1], {"dry_base": 3.0}, 3),
        ([7, 4, 2, 1, 3, 5, 4, 2, 1], {"dry_base": 1.0}, 1),
    ],
)
def test_dry_as_its_author_proposes(ids, changes, lost):
    """A base of 1.75, and repetitions of two tokens are the shortest that count; pull request 5677."""
    options = GenerationOptions(temperature=0, penalties=Penalties(dry_multiplier=1, **changes))
    assert left_by(options, ids, ProcessorContext(1, 50, 9))[3] == pytest.approx(-lost)


@pytest.mark.parametrize(("changes", "rate"), [({}, 0.1), ({"mirostat_eta": 0.7}, 0.7)])
def test_mirostat_learns_at_the_rate_of_its_paper(changes, rate):
    """Of eight equally likely tokens each has a surprise of 3 bits; mu begins at 2 * 2 and falls by the rate."""
    options = GenerationOptions(temperature=1, truncation=Truncation(mirostat_tau=2, **changes))
    (step,) = build_processors(options, ProcessorContext(1, 50, 8, generator=np.random.default_rng(0)))
    for length in range(1, 4):
        step(np.zeros(length, np.int64), np.zeros(8, np.float32))
        assert step.mu == pytest.approx(4 - rate * (length - 1))


NO_FOUR = SimpleNamespace(constraint=lambda start: lambda ids, logits: ban(logits, [start + 2]))


@pytest.mark.parametrize(
    ("options", "more", "expected"),
    [
        ({"constraints": {"logit_bias": {3: 1.5}}}, {}, {3: 2.5}),
        ({"constraints": {"bad_words_ids": ((5, 6),)}}, {}, {6: -np.inf}),
        ({}, {"spelled": Spelled(bad_words_ids=((5, 7),))}, {7: -np.inf}),
        ({}, {"spelled": Spelled(form=NO_FOUR)}, {4: -np.inf}),
        ({}, {"min_new_tokens": 2}, {2: -np.inf}),
        ({}, {"min_new_tokens": 1}, {}),
        ({"constraints": {"suppress_tokens": (8,)}}, {}, {8: -np.inf}),
        ({"penalties": {"repetition_penalty": 2.0}}, {}, {4: 0.5, 5: 0.5}),
        ({"penalties": {"encoder_repetition_penalty": 2.0}}, {}, {7: 2}),
        ({"penalties": {"frequency_penalty": 0.25}}, {}, {5: 0.75}),
        ({"penalties": {"presence_penalty": 0.25}}, {}, {5: 0.75}),
        ({"penalties": {"no_repeat_ngram_size": 1}}, {}, {4: -np.inf, 5: -np.inf}),
        ({"penalties": {"encoder_no_repeat_ngram_size": 1}}, {}, {7: -np.inf}),
        # The end's 1 is raised by 1 * (3 - 1), a token after none.
        ({"penalties": {"exponential_decay_length_penalty": (0, 3.0)}}, {}, {2: 3}),
    ],
)
def test_each_option_is_applied(options, more, expected):
    """To ones, after a prompt of two fours and an answer that begins with 5; an encoder has read 7."""
    groups = {"constraints": Constraints, "penalties": Penalties}
    asked = GenerationOptions(temperature=0, **{name: groups[name](**value) for name, value in options.items()})
    context = ProcessorContext(2, 20, 9, (2,), encoder_ids=np.array([7]), **more)
    logits = np.ones(9, np.float32)
    for processor in build_processors(asked, context):
        logits = processor(np.array([4, 4, 5]), logits)
    assert logits.tolist() == [expected.get(token, 1) for token in range(9)]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, {0, 1, 2}),
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.7}, {0, 1}),
        # Of 0.24.
        ({"min_p": 0.4}, {0, 1}),
        # The entropy is 0.898, the surprises 0.51, 1.20 and 2.30.
        ({"typical_p": 0.2}, {1}),
        ({"epsilon_cutoff": 0.2}, {0, 1}),
        # The square root of 0.25, times exp(-0.898): 0.204.
        ({"eta_cutoff": 0.25}, {0, 1}),
        # The standard deviation of the logarithms is 0.738.
        ({"top_n_sigma": 1.0}, {0, 1}),
        ({"xtc_threshold": 0.2, "xtc_probability": 1}, {1, 2}),
        ({"xtc_threshold": 0.2, "xtc_probability": 0}, {0, 1, 2}),
        # Less than 1.8 bits.
        ({"mirostat_tau": 0.9}, {0, 1}),
    ],
)
@pytest.mark.parametrize("least", [1, 3])
def test_each_truncation_is_applied_and_leaves_enough_for_beams(options, kept, least):
    """Of probabilities of 0.6, 0.3 and 0.1."""
    own = {name: value for name, value in options.items() if name in ("top_k", "top_p")}
    cuts = Truncation(**{name: value for name, value in options.items() if name not in own})
    context = ProcessorContext(1, 20, 3, generator=np.random.default_rng(0), min_tokens_to_keep=least)
    logits = np.log(np.array([0.6, 0.3, 0.1], np.float32))
    for processor in build_processors(GenerationOptions(temperature=1, truncation=cuts, **own), context):
        logits = processor(np.array([0]), logits)
    # Mirostat is for a single row, which beams are not.
    enough = least == 3 and "mirostat_tau" not in options
    assert set(np.flatnonzero(np.isfinite(logits)).tolist()) == ({0, 1, 2} if enough else kept)
