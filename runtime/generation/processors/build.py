"""Builds the processors of a row from its options, in the order in which they apply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from triform.runtime.errors import refuse_unused
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.step_order import reordered
from triform.runtime.generation.processors import bans, penalties, truncation
from triform.runtime.generation.processors.contract import Processor, Temperature
from triform.runtime.generation.processors.mirostat import Mirostat
from triform.runtime.generation.processors.spelling import Spelled
from triform.runtime.generation.steps import Ids

_DRY_BASE, _DRY_ALLOWED_LENGTH, _MIROSTAT_ETA = 1.75, 2, 0.1


@dataclass(frozen=True)
class ProcessorContext:
    """What processors know about their row besides its ids so far.

    Attributes:
        prompt_length: ids before the first generated one.
        max_length: the most ids that the row may have, its prompt included.
        vocab_size: logits at each step.
        eos: ids that end the row.
        generator: the row's random numbers; None for greedy decoding, without sampling steps.
        min_new_tokens: the fewest tokens that the answer may have.
        spelled: text options as token ids, and the compiled form.
        encoder_ids: int64 (length,), the encoder's input; None without an encoder.
        min_tokens_to_keep: the fewest tokens that a truncation leaves; beams need one more than there are `eos` ids.
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
    """The processors of one row, in the order in which they apply, without those that are off.

    Args:
        options: with the model's defaults filled in, see `with_defaults`.
        row: what else they need to know.

    Raises:
        InputError: the order that the user wants is of steps that are off.
    """
    steps = _constraint_steps(options, row) | _penalty_steps(options, row)
    if row.generator is not None:
        steps |= _sampling_steps(options, row, row.generator)
    on = [name for name in options.order if name in steps]
    refuse_unused(
        f"orders {_listed(on)}, and all other steps that it names are off", order=len(on) < 2 <= len(options.order)
    )
    return [steps[name] for name in reordered(options.order) if name in steps]


def _listed(on: Sequence[str]) -> str:
    return on[0] if on else "nothing"


def _penalty_steps(options: GenerationOptions, row: ProcessorContext) -> dict[str, Processor]:
    values, start = options.penalties, row.prompt_length
    steps: dict[str, Processor] = {}
    _add(steps, "repetition-penalty", values.repetition_penalty, 1, penalties.repetition_penalty)
    _add(steps, "frequency-penalty", values.frequency_penalty, 0, lambda x: penalties.frequency_penalty(x, start))
    _add(steps, "presence-penalty", values.presence_penalty, 0, lambda x: penalties.presence_penalty(x, start))
    _add(steps, "no-repeat-ngram", values.no_repeat_ngram_size, 0, penalties.no_repeat_ngram)
    _add(steps, "dry", values.dry_multiplier, 0, lambda multiplier: _dry(multiplier, options, row))
    decay = values.exponential_decay_length_penalty
    if decay is not None:
        steps["exponential-decay"] = penalties.exponential_decay_length_penalty(*decay, row.eos, start)
    ids = row.encoder_ids
    if ids is not None:
        encoder_ids: Ids = ids
        _add(
            steps,
            "encoder-repetition-penalty",
            values.encoder_repetition_penalty,
            1,
            lambda penalty: penalties.encoder_repetition_penalty(penalty, encoder_ids),
        )
        _add(
            steps,
            "encoder-no-repeat-ngram",
            values.encoder_no_repeat_ngram_size,
            0,
            lambda size: penalties.encoder_no_repeat_ngram(size, encoder_ids),
        )
    return steps


def _add(steps: dict[str, Processor], name: str, value: Any, off: float, make: Callable[[Any], Processor]) -> None:
    """Add a step, unless its value is None or the one that turns it off."""
    if value is not None and value != off:
        steps[name] = make(value)


def _dry(multiplier: float, options: GenerationOptions, row: ProcessorContext) -> Processor:
    values = options.penalties
    base = _DRY_BASE if values.dry_base is None else values.dry_base
    return penalties.dry(multiplier, base, values.dry_allowed_length or _DRY_ALLOWED_LENGTH, row.spelled.dry_breakers)


def _constraint_steps(options: GenerationOptions, row: ProcessorContext) -> dict[str, Processor]:
    values, eos, start = options.constraints, row.eos, row.prompt_length
    bad_words = (*(values.bad_words_ids or ()), *row.spelled.bad_words_ids)
    steps: dict[str, Processor] = {}
    if values.logit_bias:
        steps["logit-bias"] = bans.sequence_bias({(token,): bias for token, bias in values.logit_bias.items()})
    if bad_words:
        steps["bad-words"] = bans.bad_words(bad_words, eos)
    if row.min_new_tokens and eos:
        steps["min-length"] = bans.min_length(start + row.min_new_tokens, eos)
    if values.forced_bos_token_id is not None:
        steps["forced-bos"] = bans.forced_bos(values.forced_bos_token_id)
    if values.forced_eos_token_id:
        steps["forced-eos"] = bans.forced_eos(values.forced_eos_token_id, row.max_length)
    if values.forced_tokens:
        steps["forced-tokens"] = bans.forced_tokens({start + at: token for at, token in values.forced_tokens.items()})
    if values.suppress_tokens:
        steps["suppress-tokens"] = bans.suppress(values.suppress_tokens)
    if values.begin_suppress_tokens:
        # A forced first token does not count as the beginning of the answer.
        begin = start + 1 if start <= 1 and values.forced_bos_token_id is not None else start
        steps["begin-suppress-tokens"] = bans.suppress_at_begin(values.begin_suppress_tokens, begin)
    if row.spelled.form is not None:
        steps["form"] = row.spelled.form.constraint(start)
    return steps


def _sampling_steps(
    options: GenerationOptions, row: ProcessorContext, generator: np.random.Generator
) -> dict[str, Processor]:
    values, least = options.truncation, row.min_tokens_to_keep
    steps: dict[str, Processor] = {}
    _add(steps, "temperature", options.temperature, 1, Temperature)
    _add(steps, "top-k", options.top_k, 0, lambda k: truncation.top_k(k, least))
    if options.top_p is not None and options.top_p < 1:
        steps["top-p"] = truncation.top_p(options.top_p, least)
    _add(steps, "top-n-sigma", values.top_n_sigma, 0, lambda n: truncation.top_n_sigma(n, least))
    _add(steps, "min-p", values.min_p, 0, lambda p: truncation.min_p(p, least))
    _add(steps, "typical-p", values.typical_p, 1, lambda mass: truncation.typical_p(mass, least))
    if values.epsilon_cutoff is not None and 0 < values.epsilon_cutoff < 1:
        steps["epsilon-cutoff"] = truncation.epsilon_cutoff(values.epsilon_cutoff, least)
    if values.eta_cutoff is not None and 0 < values.eta_cutoff < 1:
        steps["eta-cutoff"] = truncation.eta_cutoff(values.eta_cutoff, least)
    if values.xtc_threshold is not None and values.xtc_probability is not None:
        steps["xtc"] = truncation.xtc(values.xtc_threshold, values.xtc_probability, generator, least)
    eta = _MIROSTAT_ETA if values.mirostat_eta is None else values.mirostat_eta
    _add(steps, "mirostat", values.mirostat_tau, 0, lambda tau: Mirostat(tau, eta))
    return steps
