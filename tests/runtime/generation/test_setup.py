"""What is settled of a call, and the room that a prompt leaves for its answer: by arithmetic, for a context of 640."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.manifest import Manifest
from triform.runtime.checked_json import build
from triform.runtime.errors import ContextError, InputError
from triform.runtime.generation.options.beams import Beams, BestOf, DiverseBeams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import Constraints, Penalties
from triform.runtime.generation.setup import check_length, settle

MANIFESTS = Path(__file__).parent.parent / "bundle" / "manifests"


def manifest(file="decoder", **defaults):
    found = build(Manifest, json.loads((MANIFESTS / f"{file}.json").read_text(encoding="utf-8")))
    return replace(found, generation=replace(GenerationDefaults(), **defaults))


def settled(file="decoder", defaults=None, beams=None, several=False, **options):
    # Nothing here is spelled, so that no tokenizer is asked.
    return settle(GenerationOptions(**options), manifest(file, **(defaults or {})), None, beams=beams, several=several)


@pytest.mark.parametrize(
    ("prompt", "options", "defaults", "limit", "limited", "least"),
    [
        (10, {}, {}, 630, False, 0),
        (639, {}, {}, 1, False, 0),
        (10, {"max_new_tokens": 5}, {}, 5, True, 0),
        (636, {"max_new_tokens": 5}, {}, 4, True, 0),
        (635, {"max_new_tokens": 5}, {}, 5, True, 0),
        (10, {"min_new_tokens": 3}, {}, 630, False, 3),
        # What the model says, with the prompt or without it.
        (10, {}, {"max_new_tokens": 7, "min_new_tokens": 2}, 7, True, 2),
        (10, {"max_new_tokens": 5}, {"max_new_tokens": 7}, 5, True, 0),
        (10, {}, {"max_length": 30, "min_length": 14}, 20, True, 4),
        (40, {}, {"max_length": 30, "min_length": 14}, 600, False, 0),
        (30, {}, {"max_length": 30}, 610, False, 0),
        (29, {}, {"max_length": 30}, 1, True, 0),
        (10, {"max_new_tokens": 3}, {"min_length": 20}, 3, True, 3),
        (10, {"min_new_tokens": 9}, {"max_new_tokens": 4}, 9, True, 9),
    ],
)
def test_the_room_for_an_answer(prompt, options, defaults, limit, limited, least):
    row = settled(defaults=defaults, **options).row([7] * prompt)
    assert (row.limit, row.limited) == (limit, limited)
    context = row.context
    assert (context.prompt_length, context.max_length) == (prompt, prompt + limit)
    assert (context.min_new_tokens, context.vocab_size, context.eos) == (least, 400, (2,))
    assert context.generator is None and context.encoder_ids is None


def test_a_prompt_that_leaves_no_room():
    with pytest.raises(ContextError, match=r"^the prompt has 640 tokens but this model's context is 640, answer incl"):
        settled().row([7] * 640)
    check_length(640, 640, room=0)
    check_length(639, 640, room=1)
    with pytest.raises(ContextError, match=r"^the prompt has 641 tokens but this model's context is 640; shorten it$"):
        check_length(641, 640, room=0)


def test_an_answer_that_outgrows_the_context():
    row = settled(on_overflow="shift", max_new_tokens=1000).row([7] * 700)
    assert (row.limit, row.limited, row.context.max_length) == (1000, True, 1700)
    with pytest.raises(InputError, match="on_overflow"):
        settled(on_overflow="shift").row([7])


def test_rows_draw_numbers_of_their_own():
    call = settled(temperature=1.0, seed=9)
    for index in (0, 3):
        expected = np.random.Generator(np.random.Philox(key=np.array([9, index], np.uint64)))
        row = call.row([7], index)
        assert row.context.generator.random() == expected.random()
    assert settled(temperature=0).row([7]).sampler_of(2) is not None
    row = call.row([7], encoder_ids=[4, 5])
    assert row.context.encoder_ids.tolist() == [4, 5] and row.context.encoder_ids.dtype == np.int64


def test_how_many_of_the_likeliest_tokens_a_row_needs():
    assert settled(temperature=0).row([7]).wanted == 1
    assert settled(temperature=0, logprobs=0).row([7]).wanted is None
    # As many as are kept, and 16 that may be as likely as the last of them.
    assert settled(temperature=1.0, top_k=5).row([7]).wanted == 5 + 16


def test_ends_of_the_model_and_of_the_user():
    assert settled(stop_token=(5, 2, 5, 9)).eos == (2, 5, 9)
    with pytest.raises(InputError, match="400"):
        settled(stop_token=(400,))


def test_searches():
    assert settled().search is None
    assert settled(beams=Beams()).search is None
    assert settled(defaults={"num_beams": 3}).search is None
    found = settled(
        defaults={"num_beams": 3, "length_penalty": 0.5, "temperature": 0.7, "do_sample": True}, beams=Beams()
    )
    assert (found.search.num_beams, found.search.length_penalty) == (3, 0.5)
    several = Beams(num_beams=4, num_return_sequences=2, early_stopping=True)
    search = settled(beams=several, defaults={"num_beams": 3, "early_stopping": "never"}).search
    assert (search.num_beams, search.num_return_sequences, search.early_stopping) == (4, 2, True)
    assert settled(beams=several, defaults={"temperature": 0.7, "do_sample": True}).options.temperature == 0
    assert settled(beams=several, temperature=0.7).options.temperature == 0.7
    diverse = settled(beams=Beams(num_beams=4, num_beam_groups=2, diversity_penalty=0.5)).search
    assert isinstance(diverse, DiverseBeams)
    assert (diverse.num_beam_groups, diverse.diversity_penalty, diverse.beams.num_beams) == (2, 0.5, 4)
    assert settled(beams=Beams(best_of=3), temperature=1.0).search == BestOf(3, 1)


@pytest.mark.parametrize(
    ("file", "options", "refused"),
    [
        ("decoder", {"constraints": Constraints(forced_bos_token_id=3)}, "forced_bos_token_id"),
        ("bart", {"constraints": Constraints(forced_bos_token_id=3)}, None),
        ("states", {"speculate": "lookup"}, "speculate"),
        ("decoder", {"speculate": "lookup"}, None),
        ("decoder", {"temperature": 0.5, "defaults": {"top_k": 1}}, "temperature"),
        ("decoder", {"defaults": {"top_k": 1, "temperature": 0.5, "do_sample": True}}, None),
    ],
)
def test_what_a_model_does_not_have(file, options, refused):
    if refused is None:
        settled(file, **options)
        return
    with pytest.raises(InputError, match=refused):
        settled(file, **options)


def test_a_prompt_alone_is_the_first_of_several():
    """So that a seed draws the same answer to it, alone and in a batch."""
    of_call = settled(temperature=1.0, seed=5)
    draws = [of_call.row([7], *index).context.generator.random(4).tolist() for index in ((), (0,), (1,))]
    assert draws[0] == draws[1] != draws[2]


TOKENIZER = SimpleNamespace(decode=lambda ids, skip_special_tokens: f"<{ids[0]}>")


def observed(count):
    """What is noted of the first token, which a sampler of one's own chooses, and the likeliest ones beside it."""
    found = settle(GenerationOptions(temperature=0, logprobs=count), manifest(), TOKENIZER)
    growing = found.row([7]).growing(lambda ids, scores: 5)
    token = growing.choose(np.arange(400, dtype=np.float32))
    assert token.id == 5
    return token.logprobs


def test_log_probabilities_are_noted_where_they_are_asked_for():
    assert observed(None) is None
    assert (observed(0).id, observed(0).top) == (5, ())
    assert [one.id for one in observed(2).top] == [399, 398]
    # Without a sampler of one's own the settings choose.
    row = settled(temperature=0).row([7])
    assert row.growing().choose(np.arange(400, dtype=np.float32)).id == 399


@pytest.mark.parametrize(
    ("situation", "options", "refused"),
    [
        # What is for one answer at a time.
        ({"several": True}, {"logprobs": 1}, "`logprobs` are for one answer at a time"),
        ({"beams": Beams(num_beams=2)}, {"logprobs": 1}, "`logprobs` are for"),
        ({}, {"logprobs": 1}, None),
        ({"several": True}, {}, None),
        # A seed without a draw: refused where nobody asked for that, and idle where a temperature of 0 did.
        ({}, {"seed": 3}, "`seed` is for sampling"),
        ({}, {"seed": 3, "temperature": 0}, None),
        # A recording has no tokens that could be repeated.
        (
            {"file": "whisper"},
            {"penalties": Penalties(encoder_repetition_penalty=2.0)},
            "is for models that read a text",
        ),
        ({"file": "bart"}, {"penalties": Penalties(encoder_repetition_penalty=2.0)}, None),
    ],
)
def test_what_does_not_fit_the_situation(situation, options, refused):
    if refused is None:
        settled(**situation, **options)
        return
    with pytest.raises(InputError, match=refused):
        settled(**situation, **options)
