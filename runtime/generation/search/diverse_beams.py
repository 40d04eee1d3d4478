"""Diverse beam search: groups of beams that avoid each other's tokens (https://arxiv.org/abs/1610.02424)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from triform.runtime.errors import InputError, option
from triform.runtime.generation.options.beams import BeamOptions
from triform.runtime.generation.options.conflicts import check_conflicts
from triform.runtime.generation.search.batch import Branches, Hypothesis, Request, run_searches
from triform.runtime.generation.search.beams import BeamSearch, most_likely
from triform.runtime.generation.steps import BatchStep
from triform.runtime.likeliest import Table, all_rows


def diverse_beam_search(
    step: BatchStep,
    requests: Sequence[Request],
    options: BeamOptions,
    *,
    num_beam_groups: int,
    diversity_penalty: float,
    eos: Collection[int],
) -> list[list[Hypothesis]]:
    """Find likely answers that differ, all prompts in one batch.

    Each group is a beam search of its own; at each step they run one after another. A token loses `diversity_penalty`
    for each beam of an earlier group that chose it in this step (the paper's Hamming diversity). The penalties are part
    of a hypothesis's score. Tokens that ended a sequence are not penalized.

    Args:
        step: the model.
        requests: the prompts. Samplers are not used.
        options: of the search; `num_beams` is the sum over all groups.
        num_beam_groups: divides `num_beams`. With one group this is beam search.
        diversity_penalty: at least 0, in nats.
        eos: tokens that end a sequence.

    Returns:
        for each prompt up to `num_return_sequences` hypotheses of all its groups, the best first; those of one group
        differ from each other, those of two groups may be equal where the penalty is small.

    Raises:
        InputError: the options conflict or are out of range, or a sequence outgrows the model's context.
        TriformError: onnxruntime failed, or the logits are not numbers.
    """
    # A single group has no others to avoid, whatever the penalty.
    penalty = diversity_penalty if num_beam_groups > 1 else None
    check_conflicts({"num_beams": options.num_beams, "num_beam_groups": num_beam_groups, "diversity_penalty": penalty})
    if not 0 <= diversity_penalty < np.inf:
        raise InputError(f"{option('diversity_penalty')} must be 0 or more, not {diversity_penalty}")
    group = replace(options, num_beams=options.num_beams // num_beam_groups, num_return_sequences=1)
    searches = [
        _Groups([BeamSearch(request, group, eos, most_likely) for _ in range(num_beam_groups)], diversity_penalty)
        for request in requests
    ]
    run_searches(step, requests, searches)
    return [search.hypotheses()[: options.num_return_sequences] for search in searches]


class _Groups:
    """The groups of one prompt, as one search."""

    def __init__(self, groups: Sequence[BeamSearch], penalty: float) -> None:
        self._groups = groups
        self._penalty = np.float32(penalty)
        # Each unfinished group and its rows in the logits; at first they all share the prompt's single row.
        self._live = [(group, slice(0, 1)) for group in groups]

    def advance(self, logits: Table) -> Branches:
        """Advance the groups in turn. Arguments and result as `PromptSearch`."""
        table = all_rows(logits)
        chosen = np.zeros(table.shape[1], np.float32)
        live, all_tokens, all_parents, end = [], [], [], 0
        for group, rows in self._live:
            tokens, parents = group.advance(table[rows], self._penalty * chosen)
            np.add.at(chosen, tokens, 1)
            all_tokens.append(tokens)
            all_parents.append(parents + rows.start)
            if len(tokens):
                live.append((group, slice(end, end + len(tokens))))
                end += len(tokens)
        self._live = live
        return np.concatenate(all_tokens), np.concatenate(all_parents)

    def hypotheses(self) -> list[Hypothesis]:
        """The hypotheses of all groups, the best first."""
        hypotheses = [hypothesis for group in self._groups for hypothesis in group.hypotheses]
        return sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)
