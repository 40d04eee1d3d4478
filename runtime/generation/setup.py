"""What a call settles before its first token: its options, search and form once, then each prompt's row."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from triform.runtime.bundle.manifest import Manifest
from triform.runtime.errors import ContextError, flag
from triform.runtime.generation.logprobs import TokenLogprobs, token_logprobs
from triform.runtime.generation.loop import GrowingRow
from triform.runtime.generation.options.beams import Beams, Search, situation_of
from triform.runtime.generation.options.conflicts import (
    DECODER,
    ENCODER_DECODER,
    NO_LIMIT,
    NO_SOURCE_TEXT,
    SEVERAL_ANSWERS,
    check_conflicts,
)
from triform.runtime.generation.options.defaults import with_defaults, with_lengths
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import DRY_BREAKERS
from triform.runtime.generation.processors.build import ProcessorContext, build_processors, check_tokens
from triform.runtime.generation.processors.contract import Processor
from triform.runtime.generation.processors.form import Form, compile_form
from triform.runtime.generation.sampling import Sampler, ahead, make_sampler, row_generator
from triform.runtime.generation.steps import Logits
from triform.runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Settled:
    """What holds for every answer of a call; see `settle`.

    Attributes:
        options: the user's, with the model's defaults filled in, but for the lengths that depend on the prompt.
        search: None where each answer is followed alone, token by token.
        manifest: of the model, or of the task that it is given.
        tokenizer: of what is generated.
        form: that every answer has; None where answers are free.
        dry_breakers: token ids at which DRY's sequences end.
        bad_words_ids: token sequences of the texts that are banned.
    """

    options: GenerationOptions
    search: Search | None
    manifest: Manifest
    tokenizer: Tokenizer
    form: Form | None
    dry_breakers: frozenset[int]
    bad_words_ids: tuple[tuple[int, ...], ...]

    @property
    def draws(self) -> bool:
        """Whether tokens are drawn, rather than the most likely ones taken."""
        return bool(self.options.temperature)

    def row(self, ids: Sequence[int], index: int = 0, *, encoder_ids: Sequence[int] | None = None) -> Row:
        """The answer to one prompt, ready to begin.

        Args:
            ids: the prompt, at least one token.
            index: its place among all prompts of the call; its random numbers depend on it and on the seed.
            encoder_ids: what the encoder reads, of a model that reads a text.

        Raises:
            ContextError: the prompt leaves no room for an answer.
            InputError: nothing limits an answer that may outgrow the context.
        """
        options = with_lengths(self.options, self.manifest.generation, len(ids))
        limit = _limit(options, len(ids), self.manifest.max_length)
        context = ProcessorContext(
            prompt_length=len(ids),
            max_length=len(ids) + limit,
            vocab_size=self.manifest.vocab_size,
            eos=tuple(self.manifest.tokens.eos),
            generator=row_generator(options.seed, index) if self.draws else None,
            dry_breakers=self.dry_breakers,
            bad_words_ids=self.bad_words_ids,
            encoder_ids=None if encoder_ids is None else np.asarray(encoder_ids, np.int64),
            form=self.form,
        )
        return Row(ids, options, limit, context, self.tokenizer)


@dataclass(frozen=True)
class Row:
    """One prompt, and how its answer is made.

    Attributes:
        ids: the prompt.
        options: of the call, with the lengths that hold for this prompt.
        limit: tokens to generate at most.
        context: what its processors know.
        tokenizer: for texts of tokens.
    """

    ids: Sequence[int]
    options: GenerationOptions
    limit: int
    context: ProcessorContext
    tokenizer: Tokenizer

    def processors(self) -> list[Processor]:
        """The row's processors, made anew: some have a state."""
        return build_processors(self.options, self.context)

    def sampler(self) -> Sampler:
        """What chooses the row's tokens; see `make_sampler`."""
        return make_sampler(self.processors(), self.context.generator)

    def sampler_of(self, answer: int) -> Sampler:
        """What chooses the tokens of one of several answers; the first of them draws as `sampler` does."""
        generator = self.context.generator
        if generator is None:
            return self.sampler()
        context = dataclasses.replace(self.context, generator=ahead(generator, answer))
        return make_sampler(build_processors(self.options, context), context.generator)

    def growing(self, sampler: Sampler) -> GrowingRow:
        """The answer, still empty, that a sampler chooses; with log-probabilities where they are asked for."""
        count = self.options.logprobs

        def observe(logits: Logits, token: int) -> TokenLogprobs:
            return token_logprobs(self.tokenizer, logits, token, count or 0)

        return GrowingRow(
            self.ids,
            sampler,
            eos=self.context.eos,
            max_new_tokens=self.limit,
            observe=None if count is None else observe,
        )


def settle(
    options: GenerationOptions,
    manifest: Manifest,
    tokenizer: Tokenizer,
    *,
    beams: Beams | None = None,
    several: bool = False,
) -> Settled:
    """Settle everything that does not depend on the prompt, and refuse what cannot be done.

    Args:
        options: what the user asked for.
        manifest: the model's; its defaults fill in the rest.
        tokenizer: of what is generated.
        beams: how many answers to follow at once; None follows one, whatever the model's defaults are.
        several: whether prompts share a batch, so that what follows a single answer is refused.

    Raises:
        InputError: two options do not go together, or one does not fit the model; an option names a token that the
            vocabulary does not have; the form of the answer cannot be used.
        UnsupportedError: the model cannot be held to a form.
    """
    search = beams.settled(manifest.generation) if beams is not None else None
    settled = with_defaults(beams.drawing(options) if beams is not None else options, manifest.generation)
    situation = {**situation_of(search), **_situation_of(manifest)}
    if several or search is not None:
        situation[SEVERAL_ANSWERS] = True
    # Of the penalties the user's alone: a model's own ones may be for a part that it does not have here.
    check_conflicts({**vars(settled), **vars(settled.truncation), **vars(options.penalties), **situation})
    bad_words = _spellings(settled.constraints.bad_words or (), tokenizer)
    check_tokens(settled, bad_words, manifest.vocab_size)
    return Settled(
        settled,
        search,
        manifest,
        tokenizer,
        compile_form(settled.constraints, tokenizer, manifest.vocab_size, manifest.tokens.eos),
        _breakers(settled, tokenizer),
        bad_words,
    )


def check_length(length: int, context: int, *, room: int) -> None:
    """Refuse a prompt that the model cannot read.

    Args:
        length: tokens of the prompt.
        context: tokens that the model holds.
        room: tokens that have to fit behind the prompt.

    Raises:
        ContextError: it is too long.
    """
    if length + room > context:
        more, other = (", answer included", f", or see {flag('on_overflow')}") if room else ("", "")
        raise ContextError(
            f"the prompt has {length} tokens but this model's context is {context}{more}; shorten it{other}"
        )


def _situation_of(manifest: Manifest) -> dict[str, object]:
    info = manifest.encoder_decoder
    if info is None:
        return {DECODER: True}
    return {ENCODER_DECODER: True} if info.source == "text" else {ENCODER_DECODER: True, NO_SOURCE_TEXT: True}


def _limit(options: GenerationOptions, length: int, context: int) -> int:
    """Tokens to generate at most after a prompt of so many."""
    if options.on_overflow == "error":
        check_length(length, context, room=1)
        return min(options.max_new_tokens or context, context - length)
    unlimited = {NO_LIMIT: True} if options.max_new_tokens is None else {}
    check_conflicts({"on_overflow": options.on_overflow, **unlimited})
    return options.max_new_tokens or context


def _breakers(options: GenerationOptions, tokenizer: Tokenizer) -> frozenset[int]:
    """The token that ends a word followed by each breaker, as DRY's author looks them up."""
    if not options.penalties.dry_multiplier:
        return frozenset()
    texts = options.penalties.dry_sequence_breakers
    texts = DRY_BREAKERS if texts is None else texts
    return frozenset(_ids("a" + text, tokenizer)[-1] for text in texts)


def _spellings(words: tuple[str, ...], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """Each text as it is written and with a space before it, which most tokenizers spell with other tokens."""
    spelled = (tuple(_ids(text, tokenizer)) for word in words for text in (word, " " + word))
    return tuple(dict.fromkeys(ids for ids in spelled if ids))


def _ids(text: str, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
