"""Rows of an exported model that branch, leave and join, against PyTorch running each row's ids from the start."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from triform.runtime.bundle.folder import open_bundle
from triform.runtime.errors import InputError
from triform.runtime.graphs.decoding import batch as batch_step
from triform.runtime.graphs.decoding.batch import DecoderBatchStep
from triform.runtime.graphs.session import open_session
from triform.runtime.graphs.signature import check_decoder


def reference(model, rows):
    found = []
    with torch.no_grad():
        for ids in rows:
            found.append(model(input_ids=torch.tensor([ids])).logits[0, -1].numpy())
    return np.stack(found)


def check(found, model, rows):
    expected = reference(model, rows)
    assert found.dtype == np.float32 and found.shape == expected.shape
    assert np.abs(found - expected).max() < 5e-4 * np.abs(expected).max()


def test_rows_branch_leave_and_grow_as_they_like(wandering_llama):
    model, step, generator = wandering_llama.model, wandering_llama.step(), np.random.default_rng(0)
    rows = [generator.integers(0, 400, length).tolist() for length in (60, 58, 57)]
    check(step.prefill(rows), model, rows)
    for count in (3, 6, 6, 5, 8, 8, 2, 4, 4, 1, 3):
        parents = generator.integers(0, len(rows), count).tolist()
        tokens = generator.integers(0, 400, count).tolist()
        rows = [[*rows[parent], token] for parent, token in zip(parents, tokens, strict=True)]
        check(step.next(tokens, parents), model, rows)
    # The first buffers hold 64 tokens a row.
    assert step.cache.capacity > 64


def test_rows_join_between_steps(wandering_llama):
    model, step, generator = wandering_llama.model, wandering_llama.step(rows=3), np.random.default_rng(1)
    rows = [[5, 6, 7]]
    step.prefill(rows)
    for length in (30, 2, 70):
        rows.append(generator.integers(0, 400, length).tolist())
        check(step.join(rows[-1:]), model, rows[-1:])
        tokens = generator.integers(0, 400, len(rows)).tolist()
        rows = [[*ids, token] for ids, token in zip(rows, tokens, strict=True)]
        check(step.next(tokens, range(len(rows))), model, rows)
    step.select([3, 1])
    rows = [[*rows[3], 9], [*rows[1], 8]]
    check(step.next([9, 8], [0, 1]), model, rows)


def test_a_prompt_of_several_chunks_and_a_new_beginning(wandering_llama, monkeypatch):
    monkeypatch.setattr("triform.runtime.graphs.decoding.step.CHUNK", 16)
    step, generator = wandering_llama.step(), np.random.default_rng(2)
    for lengths in ((40, 16), (17, 5, 33)):
        rows = [generator.integers(0, 400, length).tolist() for length in lengths]
        check(step.prefill(rows), wandering_llama.model, rows)
        check(step.next([3] * len(rows), range(len(rows))), wandering_llama.model, [[*ids, 3] for ids in rows])


def test_the_end_of_the_context(wandering_llama):
    step = wandering_llama.step()
    step.prefill([[7] * 319, [8]])
    step.next([1, 2], [0, 1])
    with pytest.raises(InputError, match="321 tokens do not fit into the model's context of 320"):
        step.next([1, 2], [0, 1])


def test_what_a_row_gives_does_not_depend_on_the_others(real_bundle):
    """Bit by bit, also where activations are rounded to 8 bits and any difference would be one of a whole rounding."""
    bundle = open_bundle(real_bundle)
    path, _ = bundle.graph("decoder")
    session = open_session(path)
    cache = check_decoder(session, bundle.manifest, path)
    generator = np.random.default_rng(3)
    prompts = [generator.integers(20, 40_000, length).tolist() for length in (7, 30, 2)]
    tokens = generator.integers(20, 40_000, (4, 3)).tolist()
    alone = []
    for prompt, own in zip(prompts, zip(*tokens, strict=True), strict=True):
        step = DecoderBatchStep(session, bundle.manifest, cache)
        alone.append([step.prefill([prompt])[0]] + [step.next([token], [0])[0].copy() for token in own])
    for rows in (2, 3):
        step = DecoderBatchStep(session, bundle.manifest, cache)
        found = [step.prefill(prompts[:rows])] + [step.next(row[:rows], range(rows)).copy() for row in tokens]
        for place, logits in enumerate(found):
            for row in range(rows):
                assert (logits[row] == alone[row][place]).all()


def test_a_prompt_begins_where_another_one_left(wandering_llama, monkeypatch):
    """Rows that were read before, still there or gone, and rows that moved or branched since."""
    fed = []
    original = batch_step.prefill_row
    monkeypatch.setattr(
        batch_step,
        "prefill_row",
        lambda session, cache, ids, size: fed.append(len(ids)) or original(session, cache, ids, size),
    )
    model, step, generator = wandering_llama.model, wandering_llama.step(rows=4), np.random.default_rng(5)
    rules = generator.integers(0, 400, 21).tolist()
    prompts = [[*rules, *generator.integers(0, 400, 3 + index).tolist()] for index in range(6)]
    rows = []

    def join(index, run):
        fed.clear()
        check(step.join([prompts[index]]), model, [prompts[index]])
        # Of 21 tokens in common, 20 are kept.
        assert fed == [run]
        rows.append(list(prompts[index]))

    def go_on(parents):
        tokens = generator.integers(0, 400, len(parents)).tolist()
        rows[:] = [[*rows[parent], token] for parent, token in zip(parents, tokens, strict=True)]
        check(step.next(tokens, parents), model, rows)

    join(0, len(prompts[0]))
    join(1, len(prompts[1]) - 20)
    go_on([0, 1])
    go_on([1, 0, 0])
    join(2, len(prompts[2]) - 20)
    go_on([0, 1])
    # Its row has left, and all the same it was read; two tokens at least are run.
    join(2, 2)
    go_on([2])
    # The idle row beside a single one is written over.
    go_on([0])
    step.select([])
    rows.clear()
    join(3, len(prompts[3]) - 20)
    join(4, len(prompts[4]) - 20)
    # Buffers that grow keep nobody but the rows that are there.
    step.select([0])
    del rows[1:]
    prompts.append([*rules, *generator.integers(0, 400, 70).tolist()])
    join(6, len(prompts[6]) - 20)
    join(5, len(prompts[5]) - 20)
    go_on([2, 1, 0])
