"""Constrained decoding by a JSON schema, regular expression, grammar or list of choices, with the package llguidance.

llguidance parses the tokens generated so far and reports which ones may follow. All others are banned; where nothing
may follow, an end-of-sequence token is forced.
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

# White space allowed between parts of JSON, limited so that it ends; a schema's own "x-guidance" overrides it.
_WHITESPACE = r" ?|\n {0,20}"
# In llguidance's messages, the text after this marker is for its developers and is cut; the rest is shortened.
_DUMP, _LONGEST_REASON = "<state>", 300


class Constraint:
    """A processor that bans every token with which the answer can no longer have the form.

    The result depends only on the ids and logits of the call. The parser keeps the ids of the last call and resumes
    where the new ids first differ, so one instance may serve several beams.

    Args:
        matcher: llguidance's parser of the form, at its beginning; this processor's own.
        name: the option that gives the form, for messages.
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
        """Logits with minus infinity for tokens that do not fit; if the ids themselves do not fit, only `eos` is left.

        Raises:
            InputError: the form is too complex to continue, or no text of this vocabulary has it.
        """
        if not self._follow(ids[self._start :]) or self._matcher.is_stopped():
            return only(logits, self._eos)
        return np.where(self.allowed()[: len(logits)], logits, NEVER)

    def allowed(self) -> NDArray[np.bool_]:
        """Which tokens may follow, bool (tokenizer's vocabulary, padded to a multiple of 32).

        Raises:
            InputError: as a call.
        """
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._bits)
        # llguidance lets a row end when it cannot continue, which would look like an answer.
        if self._matcher.is_error():
            raise InputError(f"{option(self._name)} cannot be followed: {_reason(self._matcher.get_error())}")
        if self._matcher.is_stopped() and not self._matcher.is_accepting():
            raise InputError(f"{option(self._name)} cannot be followed: no text of this model's vocabulary matches it")
        return np.unpackbits(self._bits[0].view(np.uint8), bitorder="little").view(np.bool_)

    def forced(self, ids: Ids) -> list[int]:
        """The tokens that must come next, whatever the model predicts; none where the form leaves a choice.

        Args:
            ids: int64 (length,), the row so far.
        """
        if not self._follow(ids[self._start :]) or self._matcher.is_stopped():
            return []
        tokens: list[int] = self._matcher.compute_ff_tokens()
        return tokens

    def _follow(self, generated: Ids) -> bool:
        """Advance the matcher to the end of these ids; returns whether it accepts all of them."""
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
        """Keep a parser of the form, in its initial state. Arguments as `Constraint`."""
        self._matcher, self._name, self._eos, self._vocab_size = matcher, name, eos, vocab_size

    def constraint(self, prompt_length: int) -> Constraint:
        """A processor that constrains one row to the form.

        Args:
            prompt_length: ids of the row before the first generated one.
        """
        return Constraint(self._matcher.deep_copy(), self._name, self._eos, prompt_length, self._vocab_size)


def compile_form(constraints: Constraints, tokenizer: Tokenizer, vocab_size: int, eos: Sequence[int]) -> Form | None:
    """Compile the form of the answers.

    Args:
        constraints: gives at most one form.
        tokenizer: from a tokenizer.json, so that each token stands for bytes.
        vocab_size: logits at each step.
        eos: ids that end a row.

    Returns:
        the form; None when `constraints` gives none.

    Raises:
        InputError: the form cannot be read, llguidance does not support it, or no text has it.
        UnsupportedError: llguidance is missing or does not support the tokenizer, or the model has no `eos`.
    """
    name = next((form for form in FORMS if getattr(constraints, form) is not None), None)
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
    matcher = LLMatcher(vocabulary, _grammar(name, getattr(constraints, name)), log_level=0)
    if matcher.is_error():
        raise InputError(f"{option(name)} cannot be used: {_reason(matcher.get_error())}")
    form = Form(matcher, name, eos, vocabulary.vocab_size)
    # Raises now, not at the first token, if no text has the form.
    form.constraint(0).allowed()
    return form


# Takes about a second for fifty thousand tokens, and is the same for every row.
@lru_cache(maxsize=1)
def _vocabulary(tokenizer: Any, vocab_size: int, eos: tuple[int, ...]) -> LLTokenizer:
    from llguidance import LLTokenizer
    from tokenizers import Tokenizer as Backend

    backend = tokenizer.backend if isinstance(tokenizer, JsonTokenizer) else tokenizer
    # Other tokenizers decode its tokens to another text.
    if not isinstance(backend, Backend):
        raise ValueError("its tokenizer is not a tokenizer.json alone")
    return LLTokenizer(backend.to_str(), n_vocab=max(vocab_size, backend.get_vocab_size()), eos_token=list(eos))


def _grammar(name: str, form: Any) -> str:
    """The grammar in the form that llguidance's parser reads.

    Raises:
        InputError: the form is malformed; some errors appear only when the parser is made.
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
        # "gbnf" detects whether the text is Lark or GBNF.
        return grammar_from("gbnf" if name == "grammar" else "regex", form)
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{option(name)} cannot be read: {_reason(str(error))}") from None


def _reason(text: str) -> str:
    line = " ".join(text.partition(_DUMP)[0].split())
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + " …"
