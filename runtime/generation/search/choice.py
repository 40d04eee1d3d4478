"""Selects the search for a batch of prompts: sampling, beam search, diverse beam search, or best-of sampling."""

from __future__ import annotations

from collections.abc import Sequence

from triform.runtime.generation.options.beams import BeamOptions, BestOf, DiverseBeams, Search
from triform.runtime.generation.search.batch import Hypothesis, Request
from triform.runtime.generation.search.beams import beam_sample, beam_search
from triform.runtime.generation.search.diverse_beams import diverse_beam_search
from triform.runtime.generation.search.draws import best_of, drawn_by
from triform.runtime.generation.search.one_each import sample
from triform.runtime.generation.setup import Row
from triform.runtime.generation.steps import BatchStep
from triform.runtime.text.stop_strings import TextStops


def single_request(row: Row) -> Request:
    """The request of a row with a single answer, with its own sampler and stop strings."""
    sampler, stop = row.sampler(), row.settled.options.stop
    if not stop:
        return Request(row.ids, row.limit, sampler=sampler, wanted=row.wanted)
    ends = TextStops(row.settled.tokenizer, stop)
    return Request(row.ids, row.limit, sampler=sampler, ends=ends, wanted=row.wanted)


def run_search(step: BatchStep, rows: Sequence[Row], search: Search | None) -> list[list[Hypothesis]]:
    """Answer prompts, all in one batch.

    Args:
        step: the model.
        rows: of one call, at least one.
        search: None for one answer each, token by token.

    Returns:
        for each prompt its answers, the best first.

    Raises:
        InputError: a sequence outgrows the model's context.
        TriformError: onnxruntime failed, or the logits are not numbers.
    """
    eos = rows[0].context.eos
    if search is None:
        return sample(step, [single_request(row) for row in rows], eos=eos)
    if isinstance(search, BestOf):
        choices = [[drawn_by(row.sampler_of(answer)) for answer in range(search.count)] for row in rows]
        ranked = best_of(step, [Request(row.ids, row.limit) for row in rows], choices, eos=eos)
        return [answers[: search.num_return_sequences] for answers in ranked]
    return _run_beams(step, rows, search)


def _run_beams(step: BatchStep, rows: Sequence[Row], search: BeamOptions | DiverseBeams) -> list[list[Hypothesis]]:
    eos = rows[0].context.eos
    requests = [Request(row.ids, row.limit, row.processors()) for row in rows]
    if isinstance(search, DiverseBeams):
        return diverse_beam_search(
            step,
            requests,
            search.beams,
            num_beam_groups=search.num_beam_groups,
            diversity_penalty=search.diversity_penalty,
            eos=eos,
        )
    generators = [row.context.generator for row in rows if row.context.generator is not None]
    if len(generators) == len(rows):
        return beam_sample(step, requests, search, generators, eos=eos)
    return beam_search(step, requests, search, eos=eos)
