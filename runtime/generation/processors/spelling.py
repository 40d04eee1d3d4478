"""Prepares options once per call: texts are tokenized and the form is compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from triform.runtime.errors import InputError, option
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import DRY_BREAKERS, Constraints, Penalties
from triform.runtime.generation.processors.form import Form, compile_form
from triform.runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Spelled:
    """Text options as token ids, and the compiled form.

    Attributes:
        dry_breakers: token ids that end a sequence for DRY.
        bad_words_ids: the banned texts as token ids.
        form: of the answers; None where they are free.
    """

    dry_breakers: frozenset[int] = frozenset()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    form: Form | None = None


def spell(options: GenerationOptions, tokenizer: Tokenizer, vocab_size: int, eos: Sequence[int]) -> Spelled:
    """Tokenize the text options of a call, and compile its form.

    Args:
        options: with the model's defaults filled in.
        tokenizer: of the generated text.
        vocab_size: of the model.
        eos: ids that end a row.

    Raises:
        InputError: an option names a token that is not in the vocabulary; or see `compile_form`.
        UnsupportedError: see `compile_form`.
    """
    constraints = options.constraints
    bad_words = _spellings(constraints.bad_words or (), tokenizer)
    _check_known(constraints, (*(constraints.bad_words_ids or ()), *bad_words), vocab_size)
    form = compile_form(constraints, tokenizer, vocab_size, eos)
    return Spelled(_breakers(options.penalties, tokenizer), bad_words, form)


def stop_ids(tokens: Sequence[int | str], tokenizer: Tokenizer, vocab_size: int) -> list[int]:
    """The ids of tokens that are given by id or by text.

    Args:
        tokens: see `GenerationOptions.stop_token`.
        tokenizer: of the generated text.
        vocab_size: of the model.

    Raises:
        InputError: the vocabulary has no such token, or a text is not a single token.
    """
    ids = [_stop_id(token, tokenizer) if isinstance(token, str) else int(token) for token in tokens]
    for token in ids:
        if token >= vocab_size:
            raise _beyond("stop_token", token, vocab_size)
    return ids


def _stop_id(text: str, tokenizer: Tokenizer) -> int:
    ids = _ids(text, tokenizer)
    if len(ids) == 1 and text in (tokenizer.id_to_token(ids[0]), tokenizer.decode(ids, skip_special_tokens=False)):
        return ids[0]
    raise InputError(
        f"{option('stop_token')} {text!r:.60} is not one token of this model, but {len(ids)}; "
        f"{option('stop')} ends at a text"
    )


def _check_known(constraints: Constraints, bad_words: Sequence[Sequence[int]], vocab_size: int) -> None:
    first, forced = constraints.forced_bos_token_id, constraints.forced_tokens
    by_option = {
        "logit_bias": constraints.logit_bias,
        "bad_words": [token for sequence in bad_words for token in sequence],
        "suppress_tokens": constraints.suppress_tokens,
        "begin_suppress_tokens": constraints.begin_suppress_tokens,
        "forced_bos_token_id": None if first is None else [first],
        "forced_eos_token_id": constraints.forced_eos_token_id,
        "forced_tokens": None if forced is None else forced.values(),
    }
    for name, tokens in by_option.items():
        largest = max(tokens or (), default=0)
        if largest >= vocab_size:
            raise _beyond(name, largest, vocab_size)


def _beyond(name: str, token: int, vocab_size: int) -> InputError:
    return InputError(f"{option(name)} names token {token}; the vocabulary has {vocab_size}, counted from 0")


def _breakers(penalties: Penalties, tokenizer: Tokenizer) -> frozenset[int]:
    """The last token of "a" followed by each breaker, as in DRY's reference implementation."""
    if not penalties.dry_multiplier:
        return frozenset()
    texts = DRY_BREAKERS if penalties.dry_sequence_breakers is None else penalties.dry_sequence_breakers
    return frozenset(_ids("a" + text, tokenizer)[-1] for text in texts)


def _spellings(words: tuple[str, ...], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """The token ids of each text as written and with a space before it, which most tokenizers encode differently."""
    spelled = (tuple(_ids(text, tokenizer)) for word in words for text in (word, " " + word))
    return tuple(dict.fromkeys(ids for ids in spelled if ids))


def _ids(text: str, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
