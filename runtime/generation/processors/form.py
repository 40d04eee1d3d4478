"""Answers of a given form: a JSON schema, a regular expression, a grammar or a choice, by the package llguidance.

llguidance parses what was generated so far and tells which tokens may follow; everything else is banned, and where
nothing may follow any more, the end is forced.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from triform.runtime.errors import InputError, UnsupportedError, option
from triform.runtime.extras import missing_extra
from triform.runtime.generation.options.conflicts import FORMS
from triform.runtime.generation.options.groups import Constraints
from triform.runtime.generation.processors.contract import NEVER, only
from triform.runtime.generation.steps import Ids, Logits
from triform.runtime.text.tokenizer import JsonTokenizer, Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

# Between the parts of JSON, so that a model cannot go on with white space for ever; a schema's own "x-guidance" wins.
_WHITESPACE = r" ?|\n {0,20}"
# Of a reason that llguidance gives: what follows this is for its developers, and a line is not for pages.
_DUMP, _LONGEST_REASON = "<state>", 300


class Constraint:
    """A processor that leaves the tokens with which the generated ones can still become what is asked for.

    Its result depends on the ids and logits of a call alone: what it remembers of earlier calls saves parsing the same
    ids again, and ids that go another way are followed from where they part. So one may serve several beams.

    Args:
        matcher: llguidance's parser of the form, at its beginning; this processor's own.
        name: the option that describes the form, for messages.
        eos: ids that end a row, at least one.
        prompt_length: ids before the first generated one.
        vocab_size: of the matcher's tokenizer.
    """

    def __init__(self, matcher: LLMatcher, name: str, eos: Sequence[int], prompt_length: int, vocab_size: int) -> None:
        from llguidance.numpy import allocate_token_bitmask

        self._matcher, self._name, self._eos, self._start = matcher, name, list(eos), prompt_length
        self._bits: NDArray[np.int32] = allocate_token_bitmask(1, vocab_size)
        # Generated ids that the matcher has accepted.
        self._accepted: Ids = np.empty(0, np.int64)

    def __call__(self, ids: Ids, logits: Logits) -> Logits:
        """Logits with minus infinity for tokens that do not fit; ids that did not fit themselves can only end.

        Raises:
            InputError: the form is too complex to go on, or no text of this vocabulary has it.
        """
        if not self._follow(ids[self._start :]) or self._matcher.is_stopped():
            return only(logits, self._eos)
        return np.where(self.allowed()[: len(logits)], logits, NEVER)

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may follow, bool (vocabulary of the tokenizer, filled up to a multiple of 32).

        Raises:
            InputError: as a call.
        """
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._bits)
        # llguidance lets a row end when it cannot go on, which would look like an answer.
        if self._matcher.is_error():
            raise InputError(f"{option(self._name)} cannot be followed: {_reason(self._matcher.get_error())}")
        if self._matcher.is_stopped() and not self._matcher.is_accepting():
            raise InputError(f"{option(self._name)} cannot be followed: no text of this model's vocabulary matches it")
        return np.unpackbits(self._bits[0].view(np.uint8), bitorder="little").view(np.bool_)

    def forced(self, ids: Ids) -> list[int]:
        """Tokens that spell what must come next, whatever the model says; none where it has a choice.

        Args:
            ids: int64 (length,), the row so far.
        """
        if not self._follow(ids[self._start :]) or self._matcher.is_stopped():
            return []
        found: list[int] = self._matcher.compute_ff_tokens()
        return found

    def _follow(self, generated: Ids) -> bool:
        """Bring the matcher to the end of these ids; whether it accepts all of them."""
        common = min(len(self._accepted), len(generated))
        differ = np.flatnonzero(self._accepted[:common] != generated[:common])
        common = int(differ[0]) if len(differ) else common
        if common < len(self._accepted):
            self._matcher.rollback(len(self._accepted) - common)
        count = common + self._matcher.try_consume_tokens(generated[common:].tolist())
        self._accepted = generated[:count].copy()
        return count == len(generated)


class Form:
    """A form of answers, compiled once for any number of them; see `compile_form`."""

    def __init__(self, matcher: LLMatcher, name: str, eos: Sequence[int], vocab_size: int) -> None:
        """Keep a parser of the form at its beginning. Arguments as `Constraint`."""
        self._matcher, self._name, self._eos, self._vocab_size = matcher, name, eos, vocab_size

    def constraint(self, prompt_length: int) -> Constraint:
        """A processor that holds one row to the form.

        Args:
            prompt_length: ids of the row before the first generated one.
        """
        return Constraint(self._matcher.deep_copy(), self._name, self._eos, prompt_length, self._vocab_size)


def compile_form(asked: Constraints, tokenizer: Tokenizer, vocab_size: int, eos: Sequence[int]) -> Form | None:
    """Compile the form that answers are to have.

    Args:
        asked: at most one of its forms is given.
        tokenizer: a tokenizer.json, whose tokens are bytes in the end.
        vocab_size: logits at each step.
        eos: ids that end a row.

    Returns:
        the form; None when none is asked for.

    Raises:
        InputError: the form cannot be read, llguidance does not support it, or nothing has it.
        UnsupportedError: llguidance is missing, or the model has no tokens it understands.
    """
    name = next((one for one in FORMS if getattr(asked, one) is not None), None)
    if name is None:
        return None
    try:
        from llguidance import LLMatcher
    except ImportError:
        raise missing_extra(f"{option(name)} needs llguidance", "constraints") from None
    if not eos:
        raise UnsupportedError(f"{option(name)} needs a model that can end its answer; this one has no token for it")
    backend: Any = tokenizer
    try:
        vocabulary = _vocabulary(backend, vocab_size, tuple(eos))
    except ValueError as error:
        raise UnsupportedError(f"{option(name)} does not work with this model: {_reason(str(error))}") from None
    matcher = LLMatcher(vocabulary, _grammar(name, getattr(asked, name)), log_level=0)
    if matcher.is_error():
        raise InputError(f"{option(name)} cannot be used: {_reason(matcher.get_error())}")
    form = Form(matcher, name, eos, vocabulary.vocab_size)
    # For what it refuses: the caller learns now, not at the first token.
    form.constraint(0).allowed()
    return form


# Takes about a second for fifty thousand tokens, and is the same for every row.
@lru_cache(maxsize=1)
def _vocabulary(tokenizer: Any, vocab_size: int, eos: tuple[int, ...]) -> LLTokenizer:
    from llguidance import LLTokenizer
    from tokenizers import Tokenizer as Backend

    backend = tokenizer.backend if isinstance(tokenizer, JsonTokenizer) else tokenizer
    # Others make another text of its tokens.
    if not isinstance(backend, Backend):
        raise ValueError("its tokenizer is not a tokenizer.json alone")
    return LLTokenizer(backend.to_str(), n_vocab=max(vocab_size, backend.get_vocab_size()), eos_token=list(eos))


def _grammar(name: str, form: Any) -> str:
    """What llguidance's parser reads.

    Raises:
        InputError: the form is written wrongly; some mistakes show only when the parser is made.
    """
    from llguidance import LLMatcher, grammar_from

    try:
        if name == "json_schema":
            schema = json.loads(form if isinstance(form, str) else json.dumps(form))
            if not isinstance(schema, dict):
                raise ValueError("a schema is a JSON object, and {} allows anything")
            return LLMatcher.grammar_from_json_schema(schema, defaults={"whitespace_pattern": _WHITESPACE})
        if name == "choices":
            return grammar_from("choice", json.dumps(form))
        # "gbnf" is what tells Lark from GBNF by itself.
        return grammar_from("gbnf" if name == "grammar" else "regex", form)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{option(name)} cannot be read: {_reason(str(error))}") from None


def _reason(text: str) -> str:
    line = " ".join(text.partition(_DUMP)[0].split())
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + " …"
