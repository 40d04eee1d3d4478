"""The one list of steps between logits and a token, and what builds them from options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.step_order import reordered
from triform.runtime.generation.processors import bans as constraints
from triform.runtime.generation.processors import penalties, truncation
from triform.runtime.generation.processors.contract import Processor, Temperature
from triform.runtime.generation.processors.mirostat import Mirostat
from triform.runtime.generation.processors.spelling import Spelled
from triform.runtime.generation.steps import Ids

_DRY_BASE, _DRY_ALLOWED_LENGTH, _MIROSTAT_ETA = 1.75, 2, 0.1


@dataclass(frozen=True)
class ProcessorContext:
    """What processors know of the row that they serve, beside its ids so far.

    Attributes:
        prompt_length: ids before the first generated one.
        max_length: ids the row may have in all.
        vocab_size: logits at each step.
        eos: ids that end the row.
        generator: the row's random numbers; None when nothing is drawn, and the steps of sampling are left out.
        min_new_tokens: tokens before which the row may not end.
        spelled: the options that are texts.
        encoder_ids: int64 (length,), what the encoder read; None without one.
        min_tokens_to_keep: what every truncation leaves at least; beams need as many as there are ends, and one more.
    """

    prompt_length: int
    max_length: int
    vocab_size: int
    eos: tuple[int, ...] = ()
    generator: np.random.Generator | None = None
    min_new_tokens: int = 0
    spelled: Spelled = field(default_factory=Spelled)
    encoder_ids: Ids | None = None
    min_tokens_to_keep: int = 1


def build_processors(options: GenerationOptions, row: ProcessorContext) -> list[Processor]:
    """The processors of one row, in the order in which they apply. What is off is not there.

    Args:
        options: with the model's defaults filled in, see `with_defaults`.
        row: what else they need to know.
    """
    steps = _constraint_steps(options, row) | _penalty_steps(options, row)
    if row.generator is not None:
        steps |= _sampling_steps(options, row, row.generator)
    return [steps[name] for name in reordered(options.order) if name in steps]


def _penalty_steps(options: GenerationOptions, row: ProcessorContext) -> dict[str, Processor]:
    asked, start = options.penalties, row.prompt_length
    steps: dict[str, Processor] = {}
    _add(steps, "repetition-penalty", asked.repetition_penalty, 1, penalties.repetition_penalty)
    _add(steps, "frequency-penalty", asked.frequency_penalty, 0, lambda one: penalties.frequency_penalty(one, start))
    _add(steps, "presence-penalty", asked.presence_penalty, 0, lambda one: penalties.presence_penalty(one, start))
    _add(steps, "no-repeat-ngram", asked.no_repeat_ngram_size, 0, penalties.no_repeat_ngram)
    _add(steps, "dry", asked.dry_multiplier, 0, lambda one: _dry(one, options, row))
    decay = asked.exponential_decay_length_penalty
    if decay is not None:
        steps["exponential-decay"] = penalties.exponential_decay_length_penalty(*decay, row.eos, start)
    ids = row.encoder_ids
    if ids is not None:
        read: Ids = ids
        _add(
            steps,
            "encoder-repetition-penalty",
            asked.encoder_repetition_penalty,
            1,
            lambda one: penalties.encoder_repetition_penalty(one, read),
        )
        _add(
            steps,
            "encoder-no-repeat-ngram",
            asked.encoder_no_repeat_ngram_size,
            0,
            lambda one: penalties.encoder_no_repeat_ngram(one, read),
        )
    return steps


def _add(steps: dict[str, Processor], name: str, value: Any, off: float, make: Callable[[Any], Processor]) -> None:
    """Add a step, unless its value is None or the one at which it does nothing."""
    if value is not None and value != off:
        steps[name] = make(value)


def _dry(multiplier: float, options: GenerationOptions, row: ProcessorContext) -> Processor:
    asked = options.penalties
    base = _DRY_BASE if asked.dry_base is None else asked.dry_base
    return penalties.dry(multiplier, base, asked.dry_allowed_length or _DRY_ALLOWED_LENGTH, row.spelled.dry_breakers)


def _constraint_steps(options: GenerationOptions, row: ProcessorContext) -> dict[str, Processor]:
    asked, eos, start = options.constraints, row.eos, row.prompt_length
    bad_words = (*(asked.bad_words_ids or ()), *row.spelled.bad_words_ids)
    steps: dict[str, Processor] = {}
    if asked.logit_bias:
        steps["logit-bias"] = constraints.sequence_bias({(token,): bias for token, bias in asked.logit_bias.items()})
    if bad_words:
        steps["bad-words"] = constraints.bad_words(bad_words, eos)
    if row.min_new_tokens and eos:
        steps["min-length"] = constraints.min_length(start + row.min_new_tokens, eos)
    if asked.forced_bos_token_id is not None:
        steps["forced-bos"] = constraints.forced_bos(asked.forced_bos_token_id)
    if asked.forced_eos_token_id:
        steps["forced-eos"] = constraints.forced_eos(asked.forced_eos_token_id, row.max_length)
    if asked.forced_tokens:
        steps["forced-tokens"] = constraints.forced_tokens({start + at: one for at, one in asked.forced_tokens.items()})
    if asked.suppress_tokens:
        steps["suppress-tokens"] = constraints.suppress(asked.suppress_tokens)
    if asked.begin_suppress_tokens:
        # After a token that was forced upon it, a row is still at its beginning.
        begin = start + 1 if start <= 1 and asked.forced_bos_token_id is not None else start
        steps["begin-suppress-tokens"] = constraints.suppress_at_begin(asked.begin_suppress_tokens, begin)
    if row.spelled.form is not None:
        steps["form"] = row.spelled.form.constraint(start)
    return steps


def _sampling_steps(
    options: GenerationOptions, row: ProcessorContext, generator: np.random.Generator
) -> dict[str, Processor]:
    asked, least = options.truncation, row.min_tokens_to_keep
    steps: dict[str, Processor] = {}
    _add(steps, "temperature", options.temperature, 1, Temperature)
    _add(steps, "top-k", options.top_k, 0, lambda one: truncation.top_k(one, least))
    if options.top_p is not None and options.top_p < 1:
        steps["top-p"] = truncation.top_p(options.top_p, least)
    _add(steps, "top-n-sigma", asked.top_n_sigma, 0, lambda one: truncation.top_n_sigma(one, least))
    _add(steps, "min-p", asked.min_p, 0, lambda one: truncation.min_p(one, least))
    _add(steps, "typical-p", asked.typical_p, 1, lambda one: truncation.typical_p(one, least))
    if asked.epsilon_cutoff is not None and 0 < asked.epsilon_cutoff < 1:
        steps["epsilon-cutoff"] = truncation.epsilon_cutoff(asked.epsilon_cutoff, least)
    if asked.eta_cutoff is not None and 0 < asked.eta_cutoff < 1:
        steps["eta-cutoff"] = truncation.eta_cutoff(asked.eta_cutoff, least)
    if asked.xtc_threshold is not None and asked.xtc_probability is not None:
        steps["xtc"] = truncation.xtc(asked.xtc_threshold, asked.xtc_probability, generator, least)
    eta = _MIROSTAT_ETA if asked.mirostat_eta is None else asked.mirostat_eta
    _add(steps, "mirostat", asked.mirostat_tau, 0, lambda one: Mirostat(one, eta))
    return steps
