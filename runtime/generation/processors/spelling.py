"""What processors need of a call's options once: texts spelled in the model's tokens, and the form compiled."""

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
    """Options in the model's tokens.

    Attributes:
        dry_breakers: token ids at which DRY's sequences end.
        bad_words_ids: token sequences of the texts that are banned.
        form: that answers have; None where they are free.
    """

    dry_breakers: frozenset[int] = frozenset()
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    form: Form | None = None


def spell(options: GenerationOptions, tokenizer: Tokenizer, vocab_size: int, eos: Sequence[int]) -> Spelled:
    """Spell the options of a call in the model's tokens.

    Args:
        options: with the model's defaults filled in.
        tokenizer: of what is generated.
        vocab_size: of the model.
        eos: ids that end a row.

    Raises:
        InputError: an option names a token that the vocabulary does not have; or see `compile_form`.
        UnsupportedError: see `compile_form`.
    """
    asked = options.constraints
    bad_words = _spellings(asked.bad_words or (), tokenizer)
    _check_known(asked, (*(asked.bad_words_ids or ()), *bad_words), vocab_size)
    form = compile_form(asked, tokenizer, vocab_size, eos)
    return Spelled(_breakers(options.penalties, tokenizer), bad_words, form)


def stop_ids(tokens: Sequence[int | str], tokenizer: Tokenizer, vocab_size: int) -> list[int]:
    """The ids of tokens that are given by id or by text.

    Args:
        tokens: see `GenerationOptions.stop_token`.
        tokenizer: of what is generated.
        vocab_size: of the model.

    Raises:
        InputError: the vocabulary has no such token, or a text is several tokens.
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


def _check_known(asked: Constraints, bad_words: Sequence[Sequence[int]], vocab_size: int) -> None:
    named = {
        "logit_bias": asked.logit_bias,
        "bad_words": [token for sequence in bad_words for token in sequence],
        "suppress_tokens": asked.suppress_tokens,
        "begin_suppress_tokens": asked.begin_suppress_tokens,
        "forced_bos_token_id": None if asked.forced_bos_token_id is None else [asked.forced_bos_token_id],
        "forced_eos_token_id": asked.forced_eos_token_id,
        "forced_tokens": None if asked.forced_tokens is None else asked.forced_tokens.values(),
    }
    for name, tokens in named.items():
        largest = max(tokens or (), default=0)
        if largest >= vocab_size:
            raise _beyond(name, largest, vocab_size)


def _beyond(name: str, token: int, vocab_size: int) -> InputError:
    return InputError(f"{option(name)} names token {token}; the vocabulary has {vocab_size}, counted from 0")


def _breakers(asked: Penalties, tokenizer: Tokenizer) -> frozenset[int]:
    """The token that ends a word followed by each breaker, as DRY's author looks them up."""
    if not asked.dry_multiplier:
        return frozenset()
    texts = DRY_BREAKERS if asked.dry_sequence_breakers is None else asked.dry_sequence_breakers
    return frozenset(_ids("a" + text, tokenizer)[-1] for text in texts)


def _spellings(words: tuple[str, ...], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """Each text as it is written and with a space before it, which most tokenizers spell with other tokens."""
    spelled = (tuple(_ids(text, tokenizer)) for word in words for text in (word, " " + word))
    return tuple(dict.fromkeys(ids for ids in spelled if ids))


def _ids(text: str, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
