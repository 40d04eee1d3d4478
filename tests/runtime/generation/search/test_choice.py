"""Which search a call runs, with a model of a few lines whose answers are found by hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.fake_step import FakeStep
from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.manifest import Manifest
from triform.runtime.checked_json import build
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.search.choice import run_search, single_request
from triform.runtime.generation.setup import settle

VOCAB = 12


def settled(beams=None, **options):
    file = Path(__file__).parents[2] / "bundle" / "manifests" / "decoder.json"
    manifest = build(Manifest, json.loads(file.read_text(encoding="utf-8")))
    manifest = replace(manifest, vocab_size=VOCAB, generation=GenerationDefaults())
    # Nothing here is spelled, so that no tokenizer is asked.
    return settle(GenerationOptions(**options), manifest, None, beams=beams, several=True)


def answers(step, call, prompts):
    rows = [call.row(ids, index) for index, ids in enumerate(prompts)]
    return run_search(step, rows, call.search)


def greedy(step, ids, count):
    found = ()
    while len(found) < count and 2 not in found:
        found += (int(step.logits((*ids, *found)).argmax()),)
    return found


def mean_log_probability(step, ids, answer):
    return sum(step.log_probabilities((*ids, *answer[:end]))[token] for end, token in enumerate(answer)) / len(answer)


def test_without_a_search_each_prompt_has_the_likeliest_tokens_and_no_more_are_wanted():
    step, prompts = FakeStep(VOCAB, seed=4), [[5, 6], [7], [8, 9, 1]]
    found = answers(step, settled(temperature=0, max_new_tokens=6), prompts)
    assert [[one.token_ids for one in several] for several in found] == [[greedy(step, ids, 6)] for ids in prompts]
    assert step.wanted == 1
    for (one,) in found:
        assert one.finish_reason == ("stop" if one.token_ids[-1] == 2 else "length")


def test_a_row_that_needs_all_logits_gets_them():
    step = FakeStep(VOCAB, seed=4)
    answers(step, settled(temperature=1.0, top_k=0, max_new_tokens=2), [[5]])
    assert step.wanted is None


def test_a_request_ends_at_a_stop_string_where_there_is_one(monkeypatch):
    watched = []
    monkeypatch.setattr(
        "triform.runtime.generation.search.choice.TextStops",
        lambda tokenizer, stop: watched.append((tokenizer, stop)) or (lambda token: token == 7),
    )
    without = single_request(settled(max_new_tokens=4).row([5]))
    assert (without.ids, without.max_new_tokens, without.ends(7), watched) == ([5], 4, False, [])
    request = single_request(settled(max_new_tokens=4, stop=("x",)).row([5]))
    assert watched == [(None, ("x",))]
    assert (request.ids, request.max_new_tokens, request.ends(7), request.ends(8)) == ([5], 4, True, False)


@pytest.mark.parametrize("returned", [1, 2, 4])
def test_of_several_samples_the_likeliest_are_returned(returned):
    step, prompts = FakeStep(VOCAB, seed=4, spread=0.5), [[5, 6], [7]]
    call = settled(Beams(best_of=4, num_return_sequences=returned), temperature=1.0, seed=3, max_new_tokens=5)
    every = answers(step, settled(Beams(best_of=4, num_return_sequences=4), temperature=1.0, seed=3, max_new_tokens=5),
                    prompts)  # fmt: skip
    for ids, found, four in zip(prompts, answers(step, call, prompts), every, strict=True):
        assert len({one.token_ids for one in four}) > 1
        scores = [mean_log_probability(step, ids, one.token_ids) for one in four]
        assert scores == sorted(scores, reverse=True)
        assert [one.token_ids for one in found] == [one.token_ids for one in four[:returned]]


def test_beams_do_not_draw_unless_the_temperature_says_so():
    step, prompts = FakeStep(VOCAB, seed=4, spread=0.5), [[5, 6], [7]]

    def found(**options):
        call = settled(Beams(2, num_return_sequences=2), max_new_tokens=4, **options)
        return [[one.token_ids for one in several] for several in answers(step, call, prompts)]

    # As many beams as lead to every answer of one token find the likeliest one.
    wide = settled(Beams(VOCAB), max_new_tokens=1)
    for ids, (best,) in zip(prompts, answers(step, wide, prompts), strict=True):
        assert best.token_ids == (int(step.logits(ids).argmax()),)
    assert found() == found()
    assert found(temperature=1.0, seed=1) == found(temperature=1.0, seed=1)
    assert len({str(found(temperature=1.0, seed=seed)) for seed in range(4)} | {str(found())}) > 2


def test_groups_of_beams_differ_by_what_the_penalty_says():
    step, prompts = FakeStep(VOCAB, seed=4), [[8], [9]]
    groups = Beams(2, num_beam_groups=2, diversity_penalty=100.0, num_return_sequences=2)
    for ids, found in zip(prompts, answers(step, settled(groups, max_new_tokens=2), prompts), strict=True):
        # The second group pays 100 nats for what the first one chose, so it begins with the second likeliest token.
        assert {one.token_ids[0] for one in found} == set(step.logits(ids).argsort()[-2:].tolist())
