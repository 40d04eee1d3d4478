"""Groups of options: what makes tokens less likely, what forbids or demands them, what is cut off before drawing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triform.runtime.errors import InputError, option
from triform.runtime.generation.options.checks import (
    STRONGEST,
    above_zero,
    at_least_one,
    between,
    check,
    check_ids,
    finite,
    not_negative,
    whole_from_zero,
)
from triform.runtime.generation.options.conflicts import FORMS, check_conflicts

# What ends a sequence for DRY, as its author proposes.
DRY_BREAKERS = ("\n", ":", '"', "*")


@dataclass(frozen=True)
class Truncation:
    """Which tokens may be drawn, beside top_k and top_p. See docs/decoding.md.

    Attributes:
        min_p: keep tokens at least this many times as likely as the most likely one, between 0 (off) and 1.
        typical_p: keep the tokens of the most typical surprise up to this sum, above 0 and at most 1 (off).
        top_n_sigma: keep logits within so many standard deviations of the largest; above 0.
        epsilon_cutoff: keep tokens of at least this probability, between 0 (off) and 1.
        eta_cutoff: the same, less where the distribution is flat.
        xtc_threshold: remove all but the least likely of the tokens that reach this probability, above 0, at most 0.5.
        xtc_probability: how often to do so, between 0 and 1; needs xtc_threshold.
        mirostat_tau: the surprise to steer to, in bits a token; instead of every other truncation.
        mirostat_eta: how fast, above 0; 0.1 when None.

    Raises:
        InputError: a value is out of range or of another type, or two contradict each other.
    """

    min_p: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    xtc_threshold: float | None = None
    xtc_probability: float | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None

    def __post_init__(self) -> None:
        check(self, between(0, 1), "min_p", "epsilon_cutoff", "eta_cutoff", "xtc_probability")
        check(self, above_zero(1), "typical_p")
        check(self, above_zero(0.5), "xtc_threshold")
        check(self, above_zero(), "top_n_sigma", "mirostat_tau", "mirostat_eta")
        check_conflicts(vars(self))


@dataclass(frozen=True)
class Penalties:
    """What makes tokens less likely, or more. See docs/decoding.md.

    Attributes:
        repetition_penalty: for tokens in the prompt or generated; above 0, and 1 is off.
        encoder_repetition_penalty: above 1 favors tokens of the encoder's input; encoder-decoders only.
        frequency_penalty: subtracted for every time a token was generated.
        presence_penalty: subtracted from every token that was generated.
        no_repeat_ngram_size: tokens of which no run may come twice; 0 is off.
        encoder_no_repeat_ngram_size: tokens of the encoder's input of which no run may be generated; 0 is off.
        dry_multiplier: strength of the penalty for repeating a sequence; 0 is off.
        dry_base: its growth with every further token, at least 1; 1.75 when None.
        dry_allowed_length: shorter repetitions are free; at least 1; 2 when None.
        dry_sequence_breakers: texts that end a sequence; line break, colon, quotation mark and asterisk when None.
        exponential_decay_length_penalty: (tokens after which it starts, growth factor) of what favors the end.

    Raises:
        InputError: a value is out of range or of another type.
    """

    repetition_penalty: float | None = None
    encoder_repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    encoder_no_repeat_ngram_size: int | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_sequence_breakers: tuple[str, ...] | None = None
    exponential_decay_length_penalty: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        check(self, above_zero(), "repetition_penalty", "encoder_repetition_penalty")
        check(self, between(1 / STRONGEST, STRONGEST), "repetition_penalty", "encoder_repetition_penalty")
        check(self, finite(), "frequency_penalty", "presence_penalty")
        check(self, between(-STRONGEST, STRONGEST), "frequency_penalty", "presence_penalty")
        check(self, whole_from_zero(), "no_repeat_ngram_size", "encoder_no_repeat_ngram_size")
        check(self, not_negative(), "dry_multiplier")
        check(self, between(1, 1000), "dry_base")
        check(self, at_least_one(), "dry_allowed_length")
        check_conflicts(vars(self))
        if self.exponential_decay_length_penalty is not None:
            start, factor = self.exponential_decay_length_penalty
            whole_from_zero().judge("exponential_decay_length_penalty", start)
            above_zero().judge("exponential_decay_length_penalty", factor)


@dataclass(frozen=True)
class Constraints:
    """What must, must not, or should rather be said. See docs/decoding.md.

    Attributes:
        logit_bias: added to logits, by token id.
        bad_words: texts never to generate; each is banned as it is written and with a space before it.
        bad_words_ids: the same as token ids; besides the texts.
        suppress_tokens: ids never to generate.
        begin_suppress_tokens: ids not to begin with.
        forced_bos_token_id: the first token, of encoder-decoders.
        forced_eos_token_id: the last token, when the limit is reached; several leave the choice.
        forced_tokens: generated tokens that are given, by their place counted from 0.
        json_schema: the answer is JSON of this schema, which is JSON text or what it stands for.
        regex: the whole answer matches this regular expression, as Rust's regex crate writes them.
        grammar: the answer follows this grammar, Lark's or GBNF's.
        choices: the answer is one of these texts.

    Raises:
        InputError: an id is negative, a value is of another type, a text is empty, more than one form is given.
    """

    logit_bias: Mapping[int, float] | None = None
    bad_words: tuple[str, ...] | None = None
    bad_words_ids: tuple[tuple[int, ...], ...] | None = None
    suppress_tokens: tuple[int, ...] | None = None
    begin_suppress_tokens: tuple[int, ...] | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: tuple[int, ...] | None = None
    forced_tokens: Mapping[int, int] | None = None
    json_schema: str | Mapping[str, Any] | None = None
    regex: str | None = None
    grammar: str | None = None
    choices: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for name in ("suppress_tokens", "begin_suppress_tokens", "forced_eos_token_id", "logit_bias", "forced_tokens"):
            check_ids(name, getattr(self, name) or ())
        check_ids("forced_tokens", (self.forced_tokens or {}).values())
        check_ids("forced_bos_token_id", () if self.forced_bos_token_id is None else (self.forced_bos_token_id,))
        for value in (self.logit_bias or {}).values():
            finite().judge("logit_bias", value)
        for sequence in self.bad_words_ids or ():
            check_ids("bad_words_ids", sequence)
        if any(not one for one in (*(self.bad_words or ()), *(self.bad_words_ids or ()))):
            raise InputError(f"{option('bad_words')} must not be empty")
        self._check_forms()

    def _check_forms(self) -> None:
        check_conflicts({name: getattr(self, name) for name in FORMS})
        for name in ("regex", "grammar"):
            if not isinstance(getattr(self, name), str | None):
                raise InputError(f"{option(name)} must be a text, not {getattr(self, name)!r:.60}")
        if not isinstance(self.json_schema, str | Mapping | None):
            raise InputError(f"{option('json_schema')} must be JSON text or a mapping, not {self.json_schema!r:.60}")
        choices = self.choices
        if choices is not None:
            wrong = isinstance(choices, str) or any(not isinstance(one, str) or not one for one in choices)
            if wrong or not choices:
                raise InputError(f"{option('choices')} must be texts that are not empty, at least one")
