"""The tables of what does not go together: two options, or an option and a situation.

Options of `CONFLICTS` contradict each other. Those of `IDLE` have no effect beside the other, and are refused where
somebody gave them for this call; see `use_defaults`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import Any, NamedTuple

from triform.runtime.errors import InputError, is_default, option

# Situations; in the table they take the place of the second option.
DECODER = "the model is a decoder"
ENCODER_DECODER = "the model reads a source"
NO_SOURCE_TEXT = "the model reads a source that is not text"
SEVERAL_ANSWERS = "several prompts, or several answers to a prompt, are generated at once"
BEAMS = "beam search is used"
BEAM_GROUPS = "diverse beam search is used"
BEST_OF = "best-of sampling is used"
STATES = "the model has states of fixed size"
NO_LIMIT = "nothing limits the length of the answer"
GREEDY = "the most likely token is always taken"
UNASKED_GREEDY = "the most likely token is always taken, and nobody asked for it"
ONE_TOKEN = "a single token is left to sample from"
NO_BEAMS = "no beams are used"

# Options that describe the whole answer, so that only one can be given.
FORMS = ("json_schema", "regex", "grammar", "choices")
# The attributes of `Truncation` other than Mirostat's.
CUTS = ("min_p", "typical_p", "top_n_sigma", "epsilon_cutoff", "eta_cutoff", "xtc_threshold", "xtc_probability")
MIROSTAT = ("mirostat_tau", "mirostat_eta")


class Conflict(NamedTuple):
    """Two options, or an option and a situation, that may conflict.

    Attributes:
        option: the name of an option.
        other: the name of another option, or a situation.
        sentence: the message. ``{option}`` and ``{other}`` are the options as messages name them, ``{value}`` and
            ``{limit}`` their values, and any other name in braces is an option of that name.
        clash: called with the two values; returns whether they conflict. The value is None for an option that is not
            given and for a situation that does not apply.
    """

    option: str
    other: str
    sentence: str
    clash: Callable[[Any, Any], bool]


def check_conflicts(values: Mapping[str, object]) -> None:
    """Refuse options that conflict.

    Args:
        values: the value of each option by its name, None where not given; and True for each situation that applies,
            by the constants above.

    Raises:
        InputError: two of them conflict.
    """
    for name, other, sentence, clash in (*CONFLICTS, *(row for row in IDLE if not is_default(row.option))):
        value, limit = values.get(name), values.get(other)
        if clash(value, limit):
            names = _OptionNames(option=option(name), other=option(other), value=value, limit=limit)
            raise InputError(sentence.format_map(names))


class _OptionNames(dict[str, object]):
    def __missing__(self, name: str) -> str:
        return option(name)


def _both(value: object, other: object) -> bool:
    return value is not None and other is not None


def _lacks(value: object, other: object) -> bool:
    return value is not None and other is None


def _lacks_number(value: object, number: object) -> bool:
    return value is not None and not number


def _draws(off: object) -> Callable[[object, object], bool]:
    """Whether an option is given, in a situation, with another value than the one that turns it off."""
    return lambda value, situation: value is not None and value != off and situation is not None


def _more(value: Any, limit: Any) -> bool:
    return _both(value, limit) and bool(value > limit)


def _is(word: object) -> Callable[[object, object], bool]:
    return lambda value, other: value == word and other is not None


def _other_than_one(value: object, other: object) -> bool:
    return value is not None and other is not None and (other is True or other != 1)


_LENGTH = [
    Conflict("min_new_tokens", "max_new_tokens", "{option} {value} is more than {other} {limit}", _more),
    Conflict(
        "on_overflow",
        NO_LIMIT,
        "{option} shift may never end; give {max_new_tokens} too",
        _is("shift"),
    ),
]
_DRAWING = [
    *(
        Conflict(name, other, "{xtc_threshold} and {xtc_probability} belong together; give both or neither", _lacks)
        for name, other in (("xtc_threshold", "xtc_probability"), ("xtc_probability", "xtc_threshold"))
    ),
    Conflict(
        "mirostat_tau",
        "top_k",
        "{option} replaces every other truncation, so leave out {other}",
        lambda tau, top_k: tau is not None and bool(top_k),
    ),
    *(
        Conflict("mirostat_tau", name, "{option} replaces every other truncation, so leave out {other}", _both)
        for name in ("top_p", *CUTS)
    ),
]
_PENALTIES = [
    *(
        Conflict(name, DECODER, "{option} is for models with an encoder, and this is a decoder; leave it out", _both)
        for name in ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size")
    ),
    *(
        Conflict(name, NO_SOURCE_TEXT, "{option} is for models that read a text; leave it out", _both)
        for name in ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size")
    ),
]
_FORMS = [
    *(
        Conflict(name, other, "{option} and {other} cannot be used together; leave one out", _both)
        for name, other in combinations(FORMS, 2)
    ),
    Conflict(
        "target_lang", "forced_bos_token_id", "{option} already says what the first token is; leave {other} out", _both
    ),
]
_CONTRASTIVE = [
    Conflict(
        "penalty_alpha",
        "top_k",
        "{option} chooses among several tokens; give {other} of at least 2 too",
        lambda alpha, top_k: alpha is not None and (top_k or 0) < 2,
    ),
    Conflict(
        "penalty_alpha",
        "temperature",
        "{option} turns sampling off, but {other} needs it; leave one out",
        lambda alpha, temperature: alpha is not None and bool(temperature),
    ),
    *(
        Conflict("penalty_alpha", name, "{option} turns sampling off, but {other} needs it; leave one out", _both)
        for name in ("top_p", *CUTS, *MIROSTAT)
    ),
    *(
        Conflict(name, "penalty_alpha", "{option} {value} does not go with {other}; leave one out", _is(word))
        for name, word in (("speculate", "lookup"), ("on_overflow", "shift"))
    ),
    *(
        Conflict(name, "penalty_alpha", "{option} does not go with {other}; leave it out", _both)
        for name in ("prompt_cache", "draft")
    ),
]
# Options for a single answer of a decoder.
_ALONE = [
    *(
        Conflict(name, ENCODER_DECODER, f"{text} is for decoders, and this model reads a source; leave it out", clash)
        for name, text, clash in (
            ("speculate", "{option} {value}", _is("lookup")),
            ("on_overflow", "{option} {value}", _is("shift")),
            ("penalty_alpha", "{option}", _both),
        )
    ),
    *(
        Conflict(name, SEVERAL_ANSWERS, f"{text} one answer at a time, without beams; leave {it} out", clash)
        for name, text, it, clash in (
            ("speculate", "{option} {value} is for", "it", _is("lookup")),
            ("on_overflow", "{option} {value} is for", "it", _is("shift")),
            ("penalty_alpha", "{option} is for", "it", _both),
            ("logprobs", "{option} are for", "them", _both),
        )
    ),
]
_WITH_STATES = [
    Conflict(
        "speculate",
        STATES,
        "{option} {value} tries tokens that may have to be removed, which a model with states of fixed size cannot do; "
        "leave it out",
        _is("lookup"),
    ),
]
_SEARCHES = [
    Conflict(
        "num_beam_groups",
        "diversity_penalty",
        "{option} needs {other}, or all groups find the same answers; give both",
        lambda groups, penalty: (groups or 1) > 1 and penalty is None,
    ),
    Conflict(
        "diversity_penalty",
        "num_beam_groups",
        "{option} needs {other}; give both",
        lambda penalty, groups: penalty is not None and (groups or 1) == 1,
    ),
    *(
        Conflict("best_of", name, "{option} samples answers instead of using beams; leave {other} out", _other_than_one)
        for name in ("num_beams", "length_penalty", "early_stopping", "num_beam_groups")
    ),
    *(
        Conflict("num_return_sequences", name, "{option} {value} is more than {other} {limit}", _more)
        for name in ("best_of", "num_beams")
    ),
    Conflict(
        "num_beam_groups",
        "num_beams",
        "{option} must divide {other} ({limit}), not {value}",
        lambda groups, beams: _both(groups, beams) and (groups < 1 or beams % groups != 0),
    ),
    *(
        Conflict(name, BEAMS, "{option} is for a single answer, without {num_beams}; leave one out", _both)
        for name in ("mirostat_tau", "xtc_threshold")
    ),
    Conflict(
        "temperature",
        BEAM_GROUPS,
        "{num_beam_groups} does not sample; leave out {option} and what else is for sampling",
        lambda temperature, groups: bool(temperature) and groups is not None,
    ),
    Conflict(
        "temperature",
        BEST_OF,
        "{best_of} samples answers, and without {option} above 0 they would all be the same",
        lambda temperature, best_of: not temperature and best_of is not None,
    ),
    *(
        Conflict(
            name,
            SEVERAL_ANSWERS,
            "{option} is for a single answer, without a search for several; leave it out",
            _both,
        )
        for name in ("prompt_cache", "draft", "stats")
    ),
]
# The values that turn a step of sampling off; any other one needs sampling.
_OFF: Mapping[str, object] = {
    "top_k": 0, "top_p": 1, "min_p": 0, "typical_p": 1, "epsilon_cutoff": 0, "eta_cutoff": 0, "xtc_probability": 0,
}  # fmt: skip
_SAMPLING = [
    *(
        Conflict(
            name,
            # A seed says that the answer is to be the same each time, which an asked for temperature of 0 does too.
            UNASKED_GREEDY if name == "seed" else GREEDY,
            "{option} is for sampling, and here the most likely token is always taken; leave it out, or give "
            "{temperature} above 0",
            _draws(_OFF.get(name)),
        )
        for name in ("seed", "top_k", "top_p", *CUTS, *MIROSTAT)
    ),
    Conflict(
        "temperature",
        ONE_TOKEN,
        "{option} has no effect with {top_k} 1, which always takes the most likely token; leave it out, or give "
        "another {top_k}",
        _draws(0),
    ),
    Conflict("mirostat_eta", "mirostat_tau", "{option} needs {other}", _lacks),
]
_WITHOUT = [
    Conflict(
        "keep",
        "on_overflow",
        "{option} needs {other} shift; give both",
        lambda keep, overflow: keep is not None and overflow != "shift",
    ),
    *(
        Conflict(name, "dry_multiplier", "{option} needs {other}", _lacks_number)
        for name in ("dry_base", "dry_allowed_length", "dry_sequence_breakers")
    ),
    *(
        Conflict(name, NO_BEAMS, "{option} is for beam search; give {num_beams} above 1 too, or leave it out", _both)
        for name in ("length_penalty", "early_stopping")
    ),
    Conflict(
        "forced_bos_token_id",
        DECODER,
        "{option} is for models with an encoder, and this is a decoder; leave it out",
        _both,
    ),
    Conflict(
        "draft",
        "speculate",
        "{option} proposes nothing with {other} {limit}; leave one out",
        lambda draft, speculate: draft is not None and speculate in ("lookup", "off"),
    ),
    Conflict(
        "forced_tokens",
        "max_new_tokens",
        "{option} names a place that the answer does not reach: {other} is {limit}",
        lambda forced, most: bool(forced) and most is not None and max(forced) >= most,
    ),
    Conflict(
        "exponential_decay_length_penalty",
        "max_new_tokens",
        "{option} begins after the end of the answer: {other} is {limit}",
        lambda decay, most: decay is not None and most is not None and decay[0] >= most,
    ),
    Conflict(
        "order",
        "order",
        "{option} needs two steps or more",
        lambda order, _: order is not None and len(order) == 1,
    ),
]
CONFLICTS = (*_LENGTH, *_DRAWING, *_PENALTIES, *_FORMS, *_CONTRASTIVE, *_ALONE, *_WITH_STATES, *_SEARCHES)
IDLE = (*_SAMPLING, *_WITHOUT)
