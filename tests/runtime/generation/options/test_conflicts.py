"""The table of what does not go together: its names exist, and a pair is refused wherever it is asked for."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from triform.runtime.encoder_decoder.ask import Ask
from triform.runtime.errors import InputError, use_defaults
from triform.runtime.generation.options import conflicts
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.conflicts import CONFLICTS, CUTS, FORMS, IDLE, MIROSTAT, check_conflicts
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation
from triform.runtime.generation.processors.build import ProcessorContext, build_processors

GROUPS = (GenerationOptions, Truncation, Penalties, Constraints, Beams, Ask)
OPTIONS = {field.name for group in GROUPS for field in dataclasses.fields(group)}
# Of the command line, and what `Decoder` is told by methods of these names.
COMMAND_LINE = {"prompt_cache", "draft", "stats"}
SITUATIONS = {value for name, value in vars(conflicts).items() if name.isupper() and isinstance(value, str)}


def test_every_name_is_an_option_or_a_situation():
    assert len(SITUATIONS) == 13
    for option, other, sentence, _ in (*CONFLICTS, *IDLE):
        assert option in OPTIONS | COMMAND_LINE
        assert other in OPTIONS | SITUATIONS
        names = set(re.findall(r"{(\w+)}", sentence)) - {"option", "other", "value", "limit"}
        assert names <= OPTIONS
        assert ("{other}" in sentence) <= (other in OPTIONS)


def test_no_pair_stands_twice():
    pairs = [(option, other) for option, other, *_ in (*CONFLICTS, *IDLE)]
    assert len(pairs) == len(set(pairs))


def test_groups_of_names_are_whole():
    assert {*CUTS, *MIROSTAT} == {field.name for field in dataclasses.fields(Truncation)}
    assert set(FORMS) <= {field.name for field in dataclasses.fields(Constraints)}


def test_nothing_given_is_no_conflict():
    check_conflicts({})
    check_conflicts(dict.fromkeys(OPTIONS))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_new_tokens": 9, "max_new_tokens": 8}, "`min_new_tokens` 9 is more than `max_new_tokens` 8"),
        ({"keep": 0, "on_overflow": "error"}, "`keep` needs `on_overflow` shift; give both"),
        ({"regex": "a", "choices": ("b",)}, "`regex` and `choices` cannot be used together; leave one out"),
        (
            {"num_beams": 4, "num_beam_groups": 3, "diversity_penalty": 1.0},
            "`num_beam_groups` must divide `num_beams` (4), not 3",
        ),
        ({"best_of": 2, "early_stopping": True}, "`best_of` samples answers instead of using beams; leave"),
        ({"best_of": 2, "early_stopping": False}, "`best_of` samples answers instead of using beams; leave"),
        (
            {"speculate": "lookup", conflicts.ENCODER_DECODER: True},
            "`speculate` lookup is for decoders, and this model",
        ),
        (
            {"on_overflow": "shift", conflicts.NO_LIMIT: True},
            "`on_overflow` shift may never end; give `max_new_tokens` too",
        ),
        (
            {"target_lang": "de", "forced_bos_token_id": 4},
            "`target_lang` already says what the first token is; leave `forced_bos_token_id` out",
        ),
        ({"draft": "x", "penalty_alpha": 0.5, "top_k": 4}, "`draft` does not go with `penalty_alpha`; leave it out"),
        (
            {"seed": 0, conflicts.UNASKED_GREEDY: True},
            "`seed` is for sampling, and here the most likely token is always",
        ),
        ({"temperature": 2, conflicts.ONE_TOKEN: True}, "`temperature` has no effect with `top_k` 1, which always"),
        ({"early_stopping": False, conflicts.NO_BEAMS: True}, "`early_stopping` is for beam search; give `num_beams`"),
        ({"length_penalty": 1.0, conflicts.NO_BEAMS: True}, "`length_penalty` is for beam search; give `num_beams`"),
        ({"forced_bos_token_id": 3, conflicts.DECODER: True}, "`forced_bos_token_id` is for models with an encoder"),
        ({"draft": "x", "speculate": "off"}, "`draft` proposes nothing with `speculate` off; leave one out"),
        (
            {"forced_tokens": {0: 5, 7: 6}, "max_new_tokens": 7},
            "`forced_tokens` names a place that the answer does not",
        ),
        (
            {"exponential_decay_length_penalty": (7, 1.5), "max_new_tokens": 7},
            "`exponential_decay_length_penalty` begins after the end of the answer: `max_new_tokens` is 7",
        ),
        ({"stats": True, conflicts.SEVERAL_ANSWERS: True}, "`stats` is for a single answer, without a search"),
    ],
)
def test_what_does_not_go_together_is_named(values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_conflicts(values)
    # Each is welcome without the other, which is an option that needs nothing or a situation.
    last = list(values)[-1]
    if last not in ("on_overflow", "diversity_penalty", "top_k"):
        check_conflicts({name: value for name, value in values.items() if name != last})


@pytest.mark.parametrize("groups", [None, 1, 2])
@pytest.mark.parametrize("penalty", [None, 1.0])
def test_several_groups_of_beams_need_what_keeps_them_apart(groups, penalty):
    values = {"num_beams": 4, "num_beam_groups": groups, "diversity_penalty": penalty}
    several = groups == 2
    if several == (penalty is not None):
        check_conflicts(values)
        return
    named = "`num_beam_groups` needs `diversity_penalty`" if several else "`diversity_penalty` needs `num_beam_groups`"
    with pytest.raises(InputError, match=f"^{named}"):
        check_conflicts(values)


def test_one_beam_goes_with_draws():
    Beams(best_of=3, num_beams=1, num_beam_groups=1, length_penalty=1.0, num_return_sequences=3)


def test_what_turns_a_step_off_needs_no_sampling():
    truncation = Truncation(min_p=0, typical_p=1, epsilon_cutoff=0, eta_cutoff=0)
    GenerationOptions(temperature=0, top_k=0, top_p=1, truncation=truncation)
    GenerationOptions(temperature=0, top_k=4, penalty_alpha=0.5)
    GenerationOptions(temperature=0, seed=3)
    check_conflicts({"forced_tokens": {6: 5}, "exponential_decay_length_penalty": (6, 1.5), "max_new_tokens": 7})


def test_options_that_are_set_for_every_call_may_have_no_effect():
    values = {"min_p": 0.1, "top_p": 0.5, "length_penalty": 1.0, conflicts.GREEDY: True, conflicts.NO_BEAMS: True}
    use_defaults(["min_p", "top_p"])
    try:
        with pytest.raises(InputError, match="`length_penalty` is for beam search"):
            check_conflicts(values)
        # They still may not contradict each other.
        use_defaults(["regex", "choices"])
        with pytest.raises(InputError, match="cannot be used together"):
            check_conflicts({"regex": "a", "choices": ("b",)})
    finally:
        use_defaults([])
    with pytest.raises(InputError, match="`top_p` is for sampling"):
        check_conflicts(values)


def test_an_order_of_steps_that_are_off_has_no_effect():
    row = ProcessorContext(prompt_length=0, max_length=9, vocab_size=9, generator=np.random.default_rng(0))
    options = GenerationOptions(temperature=0.5, top_p=0.9, order=("min-p", "top-p"))
    with pytest.raises(InputError, match="`order` orders top-p, and all other steps that it names are off"):
        build_processors(options, row)
    turned = dataclasses.replace(options, order=("top-p", "temperature"))
    assert len(build_processors(turned, row)) == 2
