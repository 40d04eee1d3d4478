"""Many prompts of an exported model: each gets the answer it gets alone, and of searches what transformers finds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import triform
from triform.runtime.errors import InputError
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties, Truncation

PROMPTS = [
    "The ferry left",
    "Every evening the old lighthouse keeper counted the boats that came home",
    "Snow",
    "Every evening the old lighthouse keeper closed the harbor",
    "Straße, 東京",
]
GREEDY = GenerationOptions(max_new_tokens=12, temperature=0)


@pytest.fixture(scope="module")
def decoder(wandering_llama):
    return triform.load(wandering_llama.path.parent)


def texts(found):
    return [[one.text for one in answers] for answers in found]


@pytest.mark.parametrize("batch", [1, 2, 5, 8])
@pytest.mark.parametrize(
    "options",
    [
        GREEDY,
        GenerationOptions(max_new_tokens=12, temperature=0, penalties=Penalties(repetition_penalty=1.3)),
        GenerationOptions(max_new_tokens=30, temperature=0, stop=("e", "a")),
    ],
    ids=["greedy", "penalty", "stop"],
)
def test_one_answer_each(decoder, batch, options):
    alone = [decoder.generate(prompt, options, raw=True) for prompt in PROMPTS]
    found = list(decoder.generate_all(iter(PROMPTS), options, batch=batch, raw=True))
    for (answer,), expected in zip(found, alone, strict=True):
        assert (answer.text, answer.token_ids) == (expected.text, expected.token_ids)
        assert (answer.finish_reason, answer.score) == (expected.finish_reason, None)


@pytest.mark.parametrize("prompts", ["Snow", None, 7, {"role": "user", "content": "Snow"}])
def test_one_prompt_is_no_list(decoder, prompts):
    """Each of its letters, or of its keys, would be answered."""
    with pytest.raises(InputError, match=r"^a list is needed, not "):
        decoder.generate_all(prompts, GREEDY, raw=True)


def test_what_is_drawn_depends_on_the_place_among_all_and_not_on_the_batch(decoder):
    options = GenerationOptions(max_new_tokens=10, temperature=1.5, seed=7)
    same = ["Snow"] * 4
    one, three = (texts(decoder.generate_all(same, options, batch=batch, raw=True)) for batch in (1, 3))
    assert one == three
    assert len({text for (text,) in one}) == 4
    assert one[0] == [decoder.generate("Snow", options, raw=True).text]


@pytest.mark.parametrize(
    ("beams", "settings"),
    [
        (Beams(num_beams=4), {"num_beams": 4}),
        (
            Beams(num_beams=3, num_return_sequences=3, length_penalty=-0.5, early_stopping="never"),
            {"num_beams": 3, "num_return_sequences": 3, "length_penalty": -0.5, "early_stopping": "never"},
        ),
    ],
    ids=["four", "three of three"],
)
def test_beams(decoder, wandering_llama, beams, settings):
    found = list(decoder.generate_all(PROMPTS, GREEDY, beams=beams, batch=2, raw=True))
    model = wandering_llama.model
    for prompt, answers in zip(PROMPTS, found, strict=True):
        ids = torch.tensor([decoder._prompts.text_ids(prompt)])
        with torch.no_grad():
            made = model.generate(
                ids, do_sample=False, max_new_tokens=12, return_dict_in_generate=True, output_scores=True, **settings
            )
        for answer, row, score in zip(answers, made.sequences, made.sequences_scores, strict=True):
            # Rows that end early are filled up behind their end, by one or the other.
            generated = row[ids.shape[1] :].tolist()
            assert list(answer.token_ids) == generated[: len(answer.token_ids)]
            assert set(generated[len(answer.token_ids) :]) <= {
                model.generation_config.pad_token_id,
                model.generation_config.eos_token_id,
            }
            assert answer.score == pytest.approx(float(score), rel=1e-3)


def test_a_search_by_number_draws_only_when_told_to(decoder):
    """The model's own temperature is meant for one answer at a time."""
    beams, limit = Beams(num_beams=3), {"max_new_tokens": 12}
    assert decoder.settle(GenerationOptions(**limit), beams=beams).options.temperature == 0
    drawing = GenerationOptions(temperature=1.2, seed=1, **limit)
    assert decoder.settle(drawing, beams=beams).options.temperature == 1.2
    drawn = [texts(decoder.generate_all(PROMPTS, drawing, beams=beams, batch=batch, raw=True)) for batch in (1, 4)]
    assert drawn[0] == drawn[1] != texts(decoder.generate_all(PROMPTS, GREEDY, beams=beams, raw=True))


def test_groups_of_beams_differ(decoder):
    beams = Beams(num_beams=4, num_beam_groups=4, diversity_penalty=50.0, num_return_sequences=4)
    # An end costs nothing, so that all groups may choose it.
    options = dataclasses.replace(GREEDY, min_new_tokens=2)
    for answers in decoder.generate_all(PROMPTS, options, beams=beams, raw=True):
        assert len({one.token_ids[0] for one in answers}) == 4
        assert sorted((one.score for one in answers), reverse=True) == [one.score for one in answers]


def test_best_of_several(decoder):
    options = GenerationOptions(max_new_tokens=8, temperature=1.0, seed=3)
    (answers,) = decoder.generate_all(PROMPTS[:1], options, beams=Beams(best_of=6, num_return_sequences=6), raw=True)
    assert len({one.token_ids for one in answers}) > 3
    # The model's own mean log-probability, which scoring the text again gives, too.
    ids = decoder._prompts.text_ids(PROMPTS[0])
    for answer in answers:
        decoder.forget()
        logits = np.concatenate(list(decoder._step.logits_in_chunks([*ids, *answer.token_ids])))[len(ids) - 1 : -1]
        parts = torch.log_softmax(torch.tensor(logits), -1)[range(len(answer.token_ids)), list(answer.token_ids)]
        assert answer.score == pytest.approx(float(parts.mean()), rel=1e-4)
    assert [one.score for one in answers] == sorted((one.score for one in answers), reverse=True)
    # One of them is what is drawn without a choice.
    assert decoder.generate(PROMPTS[0], options, raw=True).token_ids in [one.token_ids for one in answers]


def test_prompts_are_taken_as_there_is_room(decoder):
    taken = []

    def prompts():
        for prompt in PROMPTS:
            taken.append(prompt)
            yield prompt

    found = decoder.generate_all(prompts(), GREEDY, batch=2, raw=True)
    assert taken == []
    next(found)
    assert len(taken) <= 3


DRAWING = {"temperature": 0.7}


@pytest.mark.parametrize(
    ("options", "beams", "message"),
    [
        ({"speculate": "lookup"}, {}, "`speculate` lookup is for one answer at a time"),
        ({"on_overflow": "shift", "max_new_tokens": 4}, {}, "`on_overflow` shift is for one answer at a time"),
        ({"logprobs": 1}, {}, "`logprobs` are for one answer at a time"),
        ({"truncation": Truncation(mirostat_tau=3.0)}, {"num_beams": 2}, "`mirostat_tau` is for a single answer"),
        ({"truncation": Truncation(xtc_threshold=0.1, xtc_probability=1.0)}, {"num_beams": 2}, "`xtc_threshold`"),
        ({"temperature": 0}, {"best_of": 2}, "`best_of` samples answers, and without `temperature` above 0"),
        (DRAWING, {"num_beams": 2, "num_beam_groups": 2, "diversity_penalty": 1.0}, "`num_beam_groups` does not"),
        (DRAWING, {"best_of": 2, "num_return_sequences": 3}, "`num_return_sequences` 3 is more than `best_of` 2"),
        ({}, {"num_return_sequences": 3, "num_beams": 2}, "`num_return_sequences` 3 is more than `num_beams` 2"),
    ],
)  # fmt: skip
def test_what_contradicts_itself(decoder, options, beams, message):
    with pytest.raises(InputError, match=message):
        decoder.generate_all(PROMPTS, GenerationOptions(**options), beams=Beams(**beams), raw=True)


@pytest.mark.parametrize(
    ("beams", "message"),
    [
        ({"num_beam_groups": 2, "num_beams": 4}, "`num_beam_groups` needs `diversity_penalty`"),
        ({"diversity_penalty": 1.0}, "`diversity_penalty` needs `num_beam_groups`"),
        ({"best_of": 2, "num_beams": 4}, "`best_of` samples answers instead of using beams; leave `num_beams` out"),
        ({"best_of": 0}, "`best_of` must be a whole number of at least 1, not 0"),
    ],
)
def test_searches_that_contradict_themselves(beams, message):
    with pytest.raises(InputError, match=message):
        Beams(**beams)


def test_a_prompt_that_is_refused_is_named(decoder):
    found = decoder.generate_all(["a", "", "b"], GREEDY, batch=1, raw=True)
    next(found)
    with pytest.raises(InputError, match="prompt 2: the prompt is empty"):
        next(found)
    with pytest.raises(InputError, match="`batch` must be at least 1, not 0"):
        decoder.generate_all(["a"], batch=0)


SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 3}}, "required": ["name"]}


@pytest.mark.parametrize("beams", [None, Beams(num_beams=2)])
def test_a_form_is_compiled_once_a_call(decoder, compiled, beams):
    options = GenerationOptions(max_new_tokens=2, temperature=0, constraints=Constraints(json_schema=SCHEMA))
    found = list(decoder.generate_all(["Name a ferry."] * 100, options, beams=beams, batch=25, raw=True))
    assert len(found) == 100
    assert len(compiled) == 1
    assert {answers[0].text[:1] for answers in found} == {"{"}


@pytest.mark.parametrize(
    ("options", "beams"),
    [
        ({}, Beams(num_beams=3)),
        ({"temperature": 0.9, "seed": 4}, Beams(num_beams=3)),
        ({}, Beams(num_beams=4, num_beam_groups=2, diversity_penalty=0.5)),
        ({"temperature": 0.9, "seed": 4}, Beams(best_of=3)),
    ],
)
def test_generate_gives_the_best_of_a_search(decoder, options, beams):
    asked = GenerationOptions(max_new_tokens=10, **options)
    ((best, *_),) = decoder.generate_all(PROMPTS[1:2], asked, beams=beams, raw=True)
    found = decoder.generate(PROMPTS[1], asked, beams=beams, raw=True)
    assert (found.text, found.token_ids, found.finish_reason) == (best.text, best.token_ids, best.finish_reason)
    assert found.prompt_tokens == len(decoder._prompts.text_ids(PROMPTS[1]))
    # The first token aside, a time for every step of the search.
    assert len(found.timings.tokens) >= len(found.token_ids) - 1


def test_a_single_answer_needs_no_beams(decoder):
    alone = decoder.generate(PROMPTS[0], GREEDY, raw=True)
    assert decoder.generate(PROMPTS[0], GREEDY, beams=Beams(num_beams=1), raw=True).token_ids == alone.token_ids
    with pytest.raises(InputError, match="`logprobs` are for one answer at a time"):
        decoder.generate(PROMPTS[0], GenerationOptions(logprobs=1), beams=Beams(num_beams=2), raw=True)
