"""Which search the options and a model's defaults lead to."""

from __future__ import annotations

import pytest

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.errors import InputError
from triform.runtime.generation.options.beams import (
    BeamOptions,
    Beams,
    BestOf,
    DiverseBeams,
    rows_of,
    situation_of,
)
from triform.runtime.generation.options.conflicts import BEAM_GROUPS, BEAMS, BEST_OF
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Truncation

MODELS_OWN = GenerationDefaults(num_beams=5, length_penalty=0.5, early_stopping=True)
GROUPS = DiverseBeams(BeamOptions(4, 0.5, True, 1), 2, 0.0)


@pytest.mark.parametrize(
    ("beams", "defaults", "expected"),
    [
        (Beams(), GenerationDefaults(), None),
        (Beams(1), MODELS_OWN, None),
        (Beams(), GenerationDefaults(num_beams=1), None),
        (Beams(2), GenerationDefaults(), BeamOptions(2, 1.0, False, 1)),
        (Beams(), MODELS_OWN, BeamOptions(5, 0.5, True, 1)),
        (Beams(3, num_return_sequences=2), MODELS_OWN, BeamOptions(3, 0.5, True, 2)),
        (Beams(length_penalty=0.0, early_stopping=False), MODELS_OWN, BeamOptions(5, 0.0, False, 1)),
        (Beams(early_stopping="never"), MODELS_OWN, BeamOptions(5, 0.5, "never", 1)),
        (
            Beams(4, num_beam_groups=2, diversity_penalty=0.0),
            MODELS_OWN,
            DiverseBeams(BeamOptions(4, 0.5, True, 1), 2, 0.0),
        ),
        (Beams(best_of=3), GenerationDefaults(), BestOf(3, 1)),
        (Beams(best_of=3, num_return_sequences=2), GenerationDefaults(), BestOf(3, 2)),
        # The model's number of beams gives way to samples, and one beam is none.
        (Beams(best_of=3), MODELS_OWN, BestOf(3, 1)),
        (Beams(1, best_of=3), MODELS_OWN, BestOf(3, 1)),
    ],
)
def test_the_search(beams, defaults, expected):
    assert beams.settled(defaults) == expected


@pytest.mark.parametrize(
    ("beams", "options", "temperature"),
    [
        (Beams(2), GenerationOptions(), 0.0),
        (Beams(2), GenerationOptions(temperature=0.7), 0.7),
        # Whoever asks for a way to draw wants draws.
        (Beams(2), GenerationOptions(truncation=Truncation(min_p=0.1)), None),
        (Beams(2), GenerationOptions(top_k=3), None),
        (Beams(1), GenerationOptions(), None),
        (Beams(), GenerationOptions(), None),
    ],
)
def test_beams_do_not_draw_unasked(beams, options, temperature):
    assert beams.drawing(options).temperature == temperature


@pytest.mark.parametrize(
    ("search", "rows", "situations"),
    [
        (None, 1, set()),
        (BeamOptions(3), 3, {BEAMS}),
        (GROUPS, 4, {BEAMS, BEAM_GROUPS}),
        (BestOf(5, 2), 5, {BEST_OF}),
    ],
)
def test_what_a_search_needs_and_what_it_conflicts_with(search, rows, situations):
    assert rows_of(search) == rows
    assert situation_of(search) == dict.fromkeys(situations, True)


@pytest.mark.parametrize("beams", [1, 2, 7])
def test_as_few_as_one_beam_and_as_many_answers_as_beams(beams):
    assert BeamOptions(beams, num_return_sequences=beams).num_return_sequences == beams


@pytest.mark.parametrize("arguments", [(0,), (-1,), (2, 1.0, False, 0), (2, 1.0, False, 3)])
def test_fewer_beams_than_one_or_than_answers_are_refused(arguments):
    with pytest.raises(InputError):
        BeamOptions(*arguments)


@pytest.mark.parametrize("number", [1, 2])
def test_what_is_for_beams_alone_needs_beams(number):
    for given in ({"length_penalty": 0.5}, {"early_stopping": True}, {"early_stopping": False}):
        if number == 1:
            with pytest.raises(InputError, match="is for beam search; give `num_beams` above 1 too"):
                Beams(1, **given)
            with pytest.raises(InputError, match="is for beam search"):
                Beams(**given).settled(GenerationDefaults())
        else:
            assert Beams(2, **given).settled(GenerationDefaults()) == BeamOptions(2, **given)


def test_samples_in_place_of_beams():
    with pytest.raises(InputError, match="`best_of` samples answers instead of using beams; leave `num_beams` out"):
        Beams(2, best_of=3)
    with pytest.raises(InputError, match="`num_return_sequences` 4 is more than `best_of` 3"):
        Beams(best_of=3, num_return_sequences=4)


@pytest.mark.parametrize("penalty", [-100.0, -0.5, 0.0, 100.0])
def test_penalties_of_length_of_both_signs(penalty):
    assert Beams(2, length_penalty=penalty).length_penalty == penalty
    assert BeamOptions(2, penalty).length_penalty == penalty


@pytest.mark.parametrize("stopping", ["always", 2, "True"])
def test_when_a_search_may_stop(stopping):
    assert [Beams(2, early_stopping=value).early_stopping for value in (True, False, "never")] == [True, False, "never"]
    for make in (Beams, BeamOptions):
        with pytest.raises(InputError, match="must be true, false or never"):
            make(2, early_stopping=stopping)


@pytest.mark.parametrize("name", ["num_beams", "num_return_sequences", "num_beam_groups", "best_of"])
def test_numbers_of_beams_and_answers_are_whole_and_at_least_one(name):
    assert getattr(Beams(**{name: 1}), name) == 1
    for value in (0, -1, True, 1.5):
        with pytest.raises(InputError, match="whole number of at least 1"):
            Beams(**{name: value})
