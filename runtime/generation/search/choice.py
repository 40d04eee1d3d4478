"""The search that answers a batch of prompts: one answer each, beams, groups of beams, or the best of several draws."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from triform.runtime.generation.options.beams import BestOf, DiverseBeams, Search
from triform.runtime.generation.search.batch import Hypothesis, Request
from triform.runtime.generation.search.beams import beam_sample, beam_search
from triform.runtime.generation.search.diverse_beams import diverse_beam_search
from triform.runtime.generation.search.draws import best_of
from triform.runtime.generation.search.one_each import sample
from triform.runtime.generation.setup import RowSetup
from triform.runtime.generation.steps import BatchStep
from triform.runtime.text.stop_strings import TextStops
from triform.runtime.text.tokenizer import Tokenizer


def request_of(ids: Sequence[int], setup: RowSetup, tokenizer: Tokenizer) -> Request:
    """What a batch is asked to do for one row.

    Args:
        ids: the prompt.
        setup: of its answer.
        tokenizer: for texts at which it ends.
    """
    request = Request(ids, setup.limit, setup.processors(), setup.sampler())
    if not setup.options.stop:
        return request
    return dataclasses.replace(request, ends=TextStops(tokenizer, setup.options.stop))


def run_search(
    step: BatchStep,
    prompts: Sequence[Sequence[int]],
    setups: Sequence[RowSetup],
    search: Search | None,
    tokenizer: Tokenizer,
    *,
    eos: Collection[int],
) -> list[list[Hypothesis]]:
    """Answer prompts, all in one batch.

    Args:
        step: the model.
        prompts: token ids of each, at least one.
        setups: one a prompt; those of one call draw, or do not, alike.
        search: None for one answer each, token by token.
        tokenizer: for texts at which an answer ends.
        eos: tokens that end a sequence.

    Returns:
        for each prompt its answers, the best first.

    Raises:
        InputError: a sequence outgrows the model's context.
        TriformError: onnxruntime failed, or the logits are not numbers.
    """
    requests = [request_of(ids, setup, tokenizer) for ids, setup in zip(prompts, setups, strict=True)]
    if search is None:
        return sample(step, requests, eos=eos)
    if isinstance(search, BestOf):
        found = best_of(step, requests, search.count, [setup.answer_sampler for setup in setups], eos=eos)
        return [answers[: search.num_return_sequences] for answers in found]
    if isinstance(search, DiverseBeams):
        return diverse_beam_search(
            step,
            requests,
            search.beams,
            num_beam_groups=search.num_beam_groups,
            diversity_penalty=search.diversity_penalty,
            eos=eos,
        )
    generators = [setup.row.generator for setup in setups]
    drawing = [one for one in generators if one is not None]
    if len(drawing) == len(setups):
        return beam_sample(step, requests, search, drawing, eos=eos)
    return beam_search(step, requests, search, eos=eos)
