"""Prepares a call: its options, search and form once, then the row of each prompt."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from triform.runtime.bundle.manifest import Manifest
from triform.runtime.errors import ContextError, option
from triform.runtime.generation.logprobs import TokenLogprobs, token_logprobs
from triform.runtime.generation.loop import GrowingRow
from triform.runtime.generation.options.beams import Beams, Search, situation_of
from triform.runtime.generation.options.conflicts import (
    DECODER,
    ENCODER_DECODER,
    NO_LIMIT,
    NO_SOURCE_TEXT,
    ONE_TOKEN,
    SEVERAL_ANSWERS,
    STATES,
    check_conflicts,
)
from triform.runtime.generation.options.defaults import Lengths, lengths_of, with_defaults
from triform.runtime.generation.options.generation import GenerationOptions, greedy_situation
from triform.runtime.generation.processors.build import ProcessorContext, build_processors
from triform.runtime.generation.processors.contract import Processor
from triform.runtime.generation.processors.spelling import Spelled, spell, stop_ids
from triform.runtime.generation.sampling import Sampler, answer_generator, make_sampler, row_generator, wanted
from triform.runtime.generation.steps import Logits
from triform.runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Settled:
    """The settings of all answers of a call; see `settle`.

    Attributes:
        options: the user's, with the model's defaults filled in.
        search: None where each prompt has a single answer, generated token by token.
        lengths: the length limits of the answers.
        spelled: text options as token ids, and the compiled form.
        manifest: of the model, or of the task that it is given.
        tokenizer: of the generated text.
        eos: ids that end an answer: the model's, and those that the user added.
    """

    options: GenerationOptions
    search: Search | None
    lengths: Lengths
    spelled: Spelled
    manifest: Manifest
    tokenizer: Tokenizer
    eos: tuple[int, ...]

    def row(self, ids: Sequence[int], index: int = 0, *, encoder_ids: Sequence[int] | None = None) -> Row:
        """The row of one prompt, ready to generate.

        Args:
            ids: the prompt, at least one token.
            index: its index among all prompts of the call; its random numbers depend on it and on the seed.
            encoder_ids: the encoder's input, for a model that reads a text.

        Raises:
            ContextError: the prompt leaves no room for an answer.
            InputError: nothing limits an answer that may outgrow the context.
        """
        least, most = self.lengths.after(len(ids))
        if self.options.on_overflow == "shift":
            check_conflicts({"on_overflow": "shift", NO_LIMIT: True if most is None else None})
            limit = most or 0
        else:
            check_length(len(ids), self.manifest.max_length, room=1)
            room = self.manifest.max_length - len(ids)
            limit = min(most or room, room)
        context = ProcessorContext(
            prompt_length=len(ids),
            max_length=len(ids) + limit,
            vocab_size=self.manifest.vocab_size,
            eos=self.eos,
            generator=row_generator(self.options.seed, index) if self.options.temperature else None,
            min_new_tokens=least or 0,
            spelled=self.spelled,
            encoder_ids=None if encoder_ids is None else np.asarray(encoder_ids, np.int64),
        )
        return Row(self, ids, limit, most is not None, context)


@dataclass(frozen=True)
class Row:
    """One prompt, and how its answer is generated.

    Attributes:
        settled: the settings of the call.
        ids: the prompt.
        limit: the most tokens to generate.
        limited: whether the user or the model sets the limit, not the context alone.
        context: what its processors know.
    """

    settled: Settled
    ids: Sequence[int]
    limit: int
    limited: bool
    context: ProcessorContext

    def processors(self) -> list[Processor]:
        """New processors for the row, since some have state."""
        return build_processors(self.settled.options, self.context)

    def sampler(self) -> Sampler:
        """The row's sampler; see `make_sampler`."""
        return make_sampler(self.processors(), self.context.generator)

    @property
    def wanted(self) -> int | None:
        """How many of the likeliest tokens the row needs after each token; None if it needs all logits."""
        if self.settled.options.logprobs is not None:
            return None
        return wanted(self.processors(), self.context.generator, self.context.vocab_size)

    def sampler_of(self, answer: int) -> Sampler:
        """The sampler of one of several answers; the first samples as `sampler` does."""
        generator = self.context.generator
        if generator is None:
            return self.sampler()
        context = dataclasses.replace(self.context, generator=answer_generator(generator, answer))
        return make_sampler(build_processors(self.settled.options, context), context.generator)

    def growing(self, sampler: Sampler | None = None) -> GrowingRow:
        """The row with an empty answer, with log-probabilities if requested.

        Args:
            sampler: chooses its tokens; `sampler` when None.
        """
        count, tokenizer = self.settled.options.logprobs, self.settled.tokenizer

        def observe(logits: Logits, token: int) -> TokenLogprobs:
            return token_logprobs(tokenizer, logits, token, count or 0)

        return GrowingRow(
            self.ids,
            sampler or self.sampler(),
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
    """Prepare everything that does not depend on the prompt, and check that the options fit together.

    Args:
        options: the user's.
        manifest: the model's; its defaults fill in the rest.
        tokenizer: of the generated text.
        beams: settings of a search; None generates a single answer, whatever the model's defaults are.
        several: whether prompts share a batch, so that options for a single answer are refused.

    Returns:
        the settings of all answers of the call.

    Raises:
        InputError: two options conflict, or one does not fit the model; an option names a token that is not in the
            vocabulary; the form of the answer cannot be used.
        UnsupportedError: the model's answers cannot be constrained to a form.
    """
    search = beams.settled(manifest.generation) if beams is not None else None
    searched = beams.drawing(options) if beams is not None else options
    settled, lengths = with_defaults(searched, manifest.generation), lengths_of(searched, manifest.generation)
    situation = {**situation_of(search), **_situation_of(manifest)}
    if several or search is not None:
        situation[SEVERAL_ANSWERS] = True
    if search is None and settled.temperature and settled.top_k == 1:
        check_conflicts({"temperature": options.temperature, ONE_TOKEN: True})
    # What the model's defaults fill in is no conflict of the user's, and may be for a part that is missing here.
    asked = {**vars(settled), **vars(settled.truncation), **vars(options.penalties), **vars(options.constraints)}
    check_conflicts({**asked, **greedy_situation(settled, asked=options.temperature is not None), **situation})
    added = stop_ids(settled.stop_token, tokenizer, manifest.vocab_size)
    eos = tuple(dict.fromkeys((*manifest.tokens.eos, *added)))
    spelled = spell(settled, tokenizer, manifest.vocab_size, eos)
    return Settled(settled, search, lengths, spelled, manifest, tokenizer, eos)


def check_length(length: int, context: int, *, room: int) -> None:
    """Refuse a prompt that does not fit into the model's context.

    Args:
        length: tokens of the prompt.
        context: the model's context, in tokens.
        room: tokens that must fit after the prompt.

    Raises:
        ContextError: the prompt is too long.
    """
    if length + room > context:
        more, other = (", answer included", f", or see {option('on_overflow')}") if room else ("", "")
        raise ContextError(
            f"the prompt has {length} tokens but this model's context is {context}{more}; shorten it{other}"
        )


def _situation_of(manifest: Manifest) -> dict[str, object]:
    info = manifest.encoder_decoder
    if info is None:
        has_states = manifest.cache is not None and bool(manifest.cache.states)
        return {DECODER: True, **({STATES: True} if has_states else {})}
    return {ENCODER_DECODER: True} if info.source == "text" else {ENCODER_DECODER: True, NO_SOURCE_TEXT: True}
