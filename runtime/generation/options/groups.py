"""Groups of options: truncation, penalties and constraints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from triform.runtime.errors import InputError, option
from triform.runtime.generation.options.checks import (
    LARGEST_BIAS,
    STRONGEST,
    above_zero,
    at_least_one,
    at_most,
    between,
    check,
    check_ids,
    check_list_of_texts,
    finite,
    not_negative,
    whole_from_zero,
)
from triform.runtime.generation.options.conflicts import FORMS, check_conflicts

# Sequence breakers for DRY, as its author proposes.
DRY_BREAKERS = ("\n", ":", '"', "*")


@dataclass(frozen=True)
class Truncation:
    """Which tokens may be sampled, besides top_k and top_p. See docs/decoding.md.

    Attributes:
        min_p: keep tokens at least this many times as likely as the most likely one, between 0 (off) and 1.
        typical_p: keep the tokens whose surprise is closest to the entropy, until their probabilities sum to this;
            above 0 and at most 1 (off).
        top_n_sigma: keep logits within this many standard deviations of the largest; above 0.
        epsilon_cutoff: keep tokens with at least this probability, between 0 (off) and 1.
        eta_cutoff: as `epsilon_cutoff`, with a lower bound where the distribution is flat.
        xtc_threshold: of the tokens that reach this probability, remove all but the least likely; above 0, at most 0.5.
        xtc_probability: how often to do so, between 0 and 1; needs xtc_threshold.
        mirostat_tau: the target surprise, in bits per token; replaces every other truncation.
        mirostat_eta: Mirostat's learning rate, above 0; 0.1 when None.

    Raises:
        InputError: a value is out of range or of another type, or two conflict.
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
        check(self, at_most(STRONGEST), "top_n_sigma", "mirostat_tau", "mirostat_eta")
        check_conflicts(vars(self))


@dataclass(frozen=True)
class Penalties:
    """Penalties for repetition, and for length. See docs/decoding.md.

    Attributes:
        repetition_penalty: for tokens in the prompt or the answer; above 0, and 1 is off.
        encoder_repetition_penalty: above 1 favors tokens of the encoder's input; encoder-decoders only.
        frequency_penalty: subtracted from a token's logit once for each time it was generated.
        presence_penalty: subtracted once from the logit of every token that was generated.
        no_repeat_ngram_size: no sequence of this many tokens may occur twice; 0 is off.
        encoder_no_repeat_ngram_size: no sequence of this many tokens of the encoder's input may be generated; 0 is off.
        dry_multiplier: strength of the DRY penalty for repeating a sequence; 0 is off.
        dry_base: its growth with each further repeated token, at least 1; 1.75 when None.
        dry_allowed_length: shorter repetitions are not penalized; at least 1; 2 when None.
        dry_sequence_breakers: texts that end a sequence; line break, colon, quotation mark and asterisk when None.
        exponential_decay_length_penalty: (start, factor): from `start` generated tokens on, the end becomes
            exponentially more likely.

    Raises:
        InputError: a value is out of range or of another type, or an option that it needs is not given.
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
        if self.dry_sequence_breakers is not None:
            check_list_of_texts("dry_sequence_breakers", self.dry_sequence_breakers)
        check_conflicts(vars(self))
        if self.exponential_decay_length_penalty is not None:
            decay = self.exponential_decay_length_penalty
            if not isinstance(decay, tuple | list) or len(decay) != 2:
                name = option("exponential_decay_length_penalty")
                raise InputError(f"{name} must be a position and a factor, not {decay!r:.60}")
            start, factor = decay
            whole_from_zero().judge("exponential_decay_length_penalty", start)
            above_zero().judge("exponential_decay_length_penalty", factor)


@dataclass(frozen=True)
class Constraints:
    """Tokens to ban, force or bias, and the form of the answer. See docs/decoding.md.

    Attributes:
        logit_bias: added to logits, by token id.
        bad_words: texts never to generate; each is banned as written and with a space before it.
        bad_words_ids: further banned texts, each a sequence of token ids.
        suppress_tokens: ids never to generate.
        begin_suppress_tokens: ids that the answer may not begin with.
        forced_bos_token_id: the first token; encoder-decoders only.
        forced_eos_token_id: the last token when the limit is reached; of several ids, the likeliest is taken.
        forced_tokens: tokens to force, by their position in the answer, counted from 0.
        json_schema: the answer is JSON that conforms to this schema, given as JSON text or as a mapping.
        regex: the whole answer matches this regular expression, in the syntax of Rust's regex crate.
        grammar: the answer follows this grammar, in Lark or GBNF syntax.
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
            check_ids(name, () if getattr(self, name) is None else getattr(self, name))
        for name in ("logit_bias", "forced_tokens"):
            if not isinstance(getattr(self, name), Mapping | None):
                raise InputError(f"{option(name)} must be a mapping by token id, not {getattr(self, name)!r:.60}")
        check_ids("forced_tokens", (self.forced_tokens or {}).values())
        check_ids("forced_bos_token_id", () if self.forced_bos_token_id is None else (self.forced_bos_token_id,))
        for value in (self.logit_bias or {}).values():
            finite().judge("logit_bias", value)
            between(-LARGEST_BIAS, LARGEST_BIAS).judge("logit_bias", value)
        for sequence in self.bad_words_ids or ():
            check_ids("bad_words_ids", sequence)
        if self.bad_words is not None:
            check_list_of_texts("bad_words", self.bad_words)
        if any(not word for word in (*(self.bad_words or ()), *(self.bad_words_ids or ()))):
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
            wrong = isinstance(choices, str) or any(not isinstance(text, str) or not text for text in choices)
            if wrong or not choices:
                raise InputError(f"{option('choices')} must be texts that are not empty, at least one")
