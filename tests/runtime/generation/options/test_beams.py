"""Which search the options and a model's defaults lead to."""

from __future__ import annotations

import pytest

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.generation.options.beams import BeamOptions, Beams, BestOf, DiverseBeams
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
