"""Continuous batching: the same answers as one at a time, whatever enters and leaves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.fake_step import FakeStep
from triform.runtime.errors import InputError
from triform.runtime.generation.search.batch import Request
from triform.runtime.generation.search.continuous import FinishedRow, complete, in_order


def alone(step, request, eos):
    ids = list(request.ids)
    for _ in range(request.max_new_tokens):
        ids.append(int(step.logits(ids).argmax()))
        if ids[-1] in eos:
            break
    return tuple(ids[len(request.ids) :])


@settings(max_examples=80, deadline=None)
@given(
    rows=st.integers(1, 5),
    eos=st.sets(st.integers(0, 7), max_size=3),
    prompts=st.lists(st.tuples(st.lists(st.integers(0, 7), min_size=1, max_size=4), st.integers(1, 8)), max_size=12),
)
def test_every_prompt_gets_the_answer_it_gets_alone(rows, eos, prompts):
    step = FakeStep(8)
    requests = [Request(ids, limit) for ids, limit in prompts]
    finished = list(complete(step, iter(requests), rows=rows, eos=eos))
    assert sorted(one.index for one in finished) == list(range(len(requests)))
    for one in in_order(finished):
        answer = alone(step, requests[one.index], eos)
        assert one == FinishedRow(one.index, answer, "stop" if answer[-1] in eos else "length")
    assert max(step.sizes, default=0) <= rows
    # No step is run for a row that nobody needs: the first token comes with the prompt, each later one costs a row.
    assert sum(step.sizes) == sum(len(one.token_ids) - 1 for one in finished)


def test_a_prompt_is_taken_when_there_is_room_and_answers_come_as_they_finish():
    taken = []

    def stream():
        for limit in (5, 2, 1, 3):
            taken.append(limit)
            yield Request([limit], limit)

    completions = complete(FakeStep(8), stream(), rows=2, eos=())
    assert next(completions).index == 1
    assert taken == [5, 2]
    # The third is over as soon as it is read.
    assert next(completions).index == 2
    assert taken == [5, 2, 1]
    assert [one.index for one in completions] == [3, 0]


def test_in_order_holds_back_only_what_must_wait():
    completions = [FinishedRow(index, (0,), "length") for index in (1, 0, 3, 2)]
    passed = []

    def watched():
        for one in completions:
            passed.append(one.index)
            yield one

    seen = [(one.index, len(passed)) for one in in_order(watched())]
    assert seen == [(0, 2), (1, 2), (2, 4), (3, 4)]


def test_samplers_belong_to_their_rows():
    seen = {}

    def sampler(name):
        def choose(ids, logits):
            assert logits.shape == (8,)
            seen.setdefault(name, []).append(ids.tolist())
            return name

        return choose

    requests = [Request([name, 7], 3, sampler=sampler(name)) for name in range(4)]
    for one in complete(FakeStep(8), requests, rows=3, eos=()):
        assert one.token_ids == (one.index,) * 3
    assert seen == {n: [[n, 7], [n, 7, n], [n, 7, n, n]] for n in range(4)}


@pytest.mark.parametrize("rows", [1, 4])
def test_an_exported_model_answers_as_transformers(wandering_llama, rows):
    generator = np.random.default_rng(11)
    eos = generator.choice(np.arange(6, 400), 8, replace=False).tolist()
    requests = [
        Request(generator.integers(6, 400, generator.integers(1, 40)).tolist(), int(generator.integers(1, 70)))
        for _ in range(14)
    ]
    step = wandering_llama.step(rows)
    found = list(in_order(complete(step, requests, rows=rows, eos=eos)))
    lengths = set()
    for request, one in zip(requests, found, strict=True):
        expected = wandering_llama.model.generate(
            torch.tensor([request.ids]),
            max_new_tokens=request.max_new_tokens,
            do_sample=False,
            eos_token_id=eos,
            pad_token_id=0,
        )
        assert list(one.token_ids) == expected[0, len(request.ids) :].tolist()
        lengths.add(len(one.token_ids))
    assert len(lengths) > 7
    # No more memory than for the rows there may be, one to make them even included.
    assert step.cache.layout[1] == rows + rows % 2


def test_a_prompt_longer_than_the_context_is_refused(wandering_llama):
    step = wandering_llama.step(2)
    with pytest.raises(InputError, match="do not fit into the model's context of 320"):
        list(complete(step, [Request([7] * 321, 1)], rows=2, eos=()))
    assert len(list(complete(step, [Request([7] * 3, 1)], rows=2, eos=()))) == 1
