"""Beam search on exported bundles against transformers' `generate` with the same checkpoint, token by token."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch

from triform.runtime.generation.options.beams import BeamOptions
from triform.runtime.generation.search.batch import Request
from triform.runtime.generation.search.beams import beam_search

LENGTHS = (5, 17)
SETTINGS = list(itertools.product((2, 3, 4, 5), (-1.0, 0.0, 1.0, 2.0), (True, False, "never")))


def prompts_and_eos(seed, eos):
    generator = np.random.default_rng(seed)
    prompts = [generator.integers(6, 400, length).tolist() for length in LENGTHS]
    return prompts, generator.choice(np.arange(6, 400), eos, replace=False).tolist()


def expected(model, ids, options, eos, limit, **more):
    """Transformers' sequences without the prompt and what is behind the end, and their scores."""
    output = model.generate(
        torch.tensor([ids]),
        num_beams=options.num_beams,
        length_penalty=options.length_penalty,
        early_stopping=options.early_stopping,
        num_return_sequences=options.num_return_sequences,
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=1,
        return_dict_in_generate=True,
        output_scores=True,
        **more,
    )
    answers = []
    for sequence in output.sequences[:, len(ids) :].tolist():
        end = next((place for place, token in enumerate(sequence) if token in eos), len(sequence) - 1)
        assert set(sequence[end + 1 :]) <= {1}
        answers.append(tuple(sequence[: end + 1]))
    return answers, output.sequences_scores.tolist()


def compare(wandering, cases, limit):
    """Search all prompts of a case in one batch and each alone in transformers; give the answers."""
    step, answers = wandering.step(), []
    for seed, (options, eos_count) in enumerate(cases):
        prompts, eos = prompts_and_eos(seed, eos_count)
        found = beam_search(step, [Request(ids, limit) for ids in prompts], options, eos=eos)
        for ids, hypotheses in zip(prompts, found, strict=True):
            sequences, scores = expected(wandering.model, ids, options, eos, limit)
            assert [one.token_ids for one in hypotheses] == sequences, (options, eos, ids)
            assert [one.score for one in hypotheses] == pytest.approx(scores, rel=1e-4, abs=1e-4)
            answers += sequences
    return answers


def test_llama_with_every_setting(wandering_llama):
    cases = [
        (BeamOptions(beams, penalty, stopping, num_return_sequences=1 + index % beams), (1, 40, 110)[index % 3])
        for index, (beams, penalty, stopping) in enumerate(SETTINGS)
    ]
    answers = compare(wandering_llama, cases, limit=10)
    # The comparison means something only if the searches ended in many ways.
    assert len(set(answers)) > 0.8 * len(answers)
    assert len({len(answer) for answer in answers}) == 10
    assert sum(len(answer) < 10 for answer in answers) > 0.3 * len(answers)


def test_gpt2_returning_every_beam(wandering_gpt2):
    cases = [
        (BeamOptions(beams, 1.0, stopping, num_return_sequences=beams), 40)
        for beams, stopping in itertools.product((2, 5), (True, False, "never"))
    ]
    compare(wandering_gpt2, cases, limit=12)


def test_settings_change_what_is_found(wandering_llama):
    """If they did not, agreeing with transformers about them would be worth nothing."""
    step = wandering_llama.step()

    def found(*settings):
        answers = []
        for seed in range(6):
            prompts, eos = prompts_and_eos(seed, 110)
            answers += beam_search(step, [Request(ids, 10) for ids in prompts], BeamOptions(*settings, 2), eos=eos)
        return [[one.token_ids for one in hypotheses] for hypotheses in answers]

    usual = found(3, 2.0, False)
    assert usual != found(5, 2.0, False)
    assert usual != found(3, 1.0, False)
    assert usual != found(3, 2.0, True)
    assert usual != found(3, 2.0, "never")


def no_repeated_ngrams(size):
    """transformers: NoRepeatNGramLogitsProcessor."""

    def process(ids, logits):
        row, result = ids.tolist(), logits.copy()
        start = row[len(row) - size + 1 :]
        for place in range(len(row) - size + 1):
            if row[place : place + size - 1] == start:
                result[row[place + size - 1]] = -np.inf
        return result

    return process


@pytest.mark.parametrize("size", [1, 2])
def test_a_processor_works_on_each_beam(wandering_llama, size):
    options, limit = BeamOptions(4, num_return_sequences=4), 40
    changed = False
    for seed in range(2):
        prompts, eos = prompts_and_eos(seed, 2)
        # Prompts that repeat themselves, so that the processor has something to say.
        prompts = [ids * 2 for ids in prompts]
        plain = [Request(ids, limit) for ids in prompts]
        requests = [Request(ids, limit, processors=[no_repeated_ngrams(size)]) for ids in prompts]
        found = beam_search(wandering_llama.step(), requests, options, eos=eos)
        changed |= found != beam_search(wandering_llama.step(), plain, options, eos=eos)
        for ids, hypotheses in zip(prompts, found, strict=True):
            sequences, scores = expected(wandering_llama.model, ids, options, eos, limit, no_repeat_ngram_size=size)
            assert [one.token_ids for one in hypotheses] == sequences
            assert [one.score for one in hypotheses] == pytest.approx(scores, rel=1e-4, abs=1e-4)
    assert changed


def test_probabilities_are_of_what_processors_leave(wandering_llama):
    """`renormalize_logits`, which the configs of Marian's models ask for."""
    options, limit = BeamOptions(4, num_return_sequences=4, renormalize=True), 24
    changed = False
    for seed in range(2):
        prompts, eos = prompts_and_eos(seed, 2)
        requests = [Request(ids * 2, limit, processors=[no_repeated_ngrams(1)]) for ids in prompts]
        found = beam_search(wandering_llama.step(), requests, options, eos=eos)
        plain = dataclasses.replace(options, renormalize=False)
        changed |= found != beam_search(wandering_llama.step(), requests, plain, eos=eos)
        for ids, hypotheses in zip(prompts, found, strict=True):
            sequences, scores = expected(
                wandering_llama.model, ids * 2, options, eos, limit, no_repeat_ngram_size=1, renormalize_logits=True
            )
            assert [one.token_ids for one in hypotheses] == sequences
            assert [one.score for one in hypotheses] == pytest.approx(scores, rel=1e-4, abs=1e-4)
    assert changed


def test_a_search_longer_than_the_first_buffers(wandering_llama):
    options, limit = BeamOptions(3, num_return_sequences=3), 90
    prompts, eos = prompts_and_eos(3, 1)
    found = beam_search(wandering_llama.step(), [Request(ids, limit) for ids in prompts], options, eos=eos)
    for ids, hypotheses in zip(prompts, found, strict=True):
        sequences, _ = expected(wandering_llama.model, ids, options, eos, limit)
        assert [one.token_ids for one in hypotheses] == sequences
