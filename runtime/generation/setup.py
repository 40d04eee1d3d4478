"""Everything a generation settles before its first token: limits, processors and random numbers of each row."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from triform.runtime.bundle.manifest import Manifest
from triform.runtime.errors import InputError
from triform.runtime.generation.options.checks import flag
from triform.runtime.generation.options.defaults import with_defaults
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.options.groups import DRY_BREAKERS
from triform.runtime.generation.processors.build import Row, build_processors
from triform.runtime.generation.processors.contract import Processor
from triform.runtime.generation.processors.form import make_constraint
from triform.runtime.generation.sampling import Sampler, ahead, make_sampler, row_generator
from triform.runtime.generation.steps import Ids
from triform.runtime.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class RowSetup:
    """One row, ready to generate.

    Attributes:
        options: the user's, with the model's defaults filled in.
        row: what its processors know.
        limit: tokens to generate at most.
        rounds: whether a token's logits may depend, in the last digits of a rounding, on how many are run with it.
    """

    options: GenerationOptions
    row: Row
    limit: int
    rounds: bool = False

    def processors(self) -> list[Processor]:
        """The row's processors, made anew: some have a state."""
        return build_processors(self.options, self.row)

    @property
    def looks_up(self) -> bool:
        """Whether to try tokens copied from what was there before."""
        return self.options.speculate == "lookup" or (self.fast_forwards and self.row.generator is None)

    @property
    def fast_forwards(self) -> bool:
        """Whether to try tokens that the form of the answer forces."""
        asked = self.options.speculate
        return asked == "lookup" or (asked == "auto" and not self.rounds)

    def sampler(self) -> Sampler:
        """What chooses the row's tokens; see `make_sampler`."""
        return make_sampler(self.processors(), self.row.generator)

    def answer_sampler(self, index: int) -> Sampler:
        """What chooses the tokens of one of several answers; the first of them is the row's own."""
        if self.row.generator is None:
            return self.sampler()
        generator = ahead(self.row.generator, index)
        row = dataclasses.replace(self.row, generator=generator)
        return make_sampler(build_processors(self.options, row), generator)


def set_up_row(
    options: GenerationOptions,
    manifest: Manifest,
    tokenizer: Tokenizer,
    prompt_length: int,
    *,
    index: int = 0,
    encoder_ids: Ids | None = None,
    min_tokens_to_keep: int = 1,
) -> RowSetup:
    """Settle one row of a batch.

    Args:
        options: what the user asked for.
        manifest: the model's; its defaults fill in the rest.
        tokenizer: for options that are texts.
        prompt_length: ids before the first generated one.
        index: the row's place in the batch; its random numbers depend on it and on the seed.
        encoder_ids: what the encoder read, of an encoder-decoder.
        min_tokens_to_keep: see `Row`.

    Raises:
        InputError: an option names a token that the vocabulary does not have, or needs an encoder; or the form of the
            answer that is asked for cannot be used.
        UnsupportedError: the model cannot be held to a form.
    """
    if encoder_ids is None:
        _refuse_encoders(options)
    else:
        _refuse_decoders(options)
    settled = with_defaults(options, manifest.generation, prompt_length)
    limit = _limit(settled, manifest.max_length - prompt_length)
    eos = tuple(manifest.tokens.eos)
    row = Row(
        prompt_length=prompt_length,
        max_length=prompt_length + limit,
        vocab_size=manifest.vocab_size,
        eos=eos,
        generator=row_generator(settled.seed, index) if settled.temperature else None,
        dry_breakers=_breakers(settled, tokenizer),
        bad_words_ids=_spellings(settled.constraints.bad_words or (), tokenizer),
        encoder_ids=None if encoder_ids is None else np.asarray(encoder_ids, np.int64),
        min_tokens_to_keep=min_tokens_to_keep,
        form=make_constraint(settled.constraints, tokenizer, manifest.vocab_size, eos, prompt_length),
    )
    found = RowSetup(settled, row, limit, _rounds_activations(manifest))
    # For what it refuses: the caller learns now, not at the first token.
    found.processors()
    return found


def _rounds_activations(manifest: Manifest) -> bool:
    graph = manifest.graphs.get("decoder")
    return graph is not None and graph.quantization.accuracy_level == 4


def _refuse_encoders(options: GenerationOptions) -> None:
    for name in ("encoder_repetition_penalty", "encoder_no_repeat_ngram_size"):
        if getattr(options.penalties, name) is not None:
            raise InputError(f"{flag(name)} is for models with an encoder, and this is a decoder; leave it out")


def _refuse_decoders(options: GenerationOptions) -> None:
    for name, word in (("speculate", "lookup"), ("on_overflow", "shift")):
        if getattr(options, name) == word:
            raise InputError(f"{flag(name)} {word} is for decoders, and this model reads a source; leave it out")
    if options.penalty_alpha is not None:
        raise InputError("--penalty-alpha is for decoders, and this model reads a source; leave it out")


def _limit(options: GenerationOptions, room: int) -> int:
    """Tokens to generate at most, where there is room for so many in the context."""
    if options.on_overflow == "error":
        return min(options.max_new_tokens or room, room)
    if options.max_new_tokens is None:
        raise InputError("--on-overflow shift may go on for ever; give --max-new-tokens too")
    return options.max_new_tokens


def _breakers(options: GenerationOptions, tokenizer: Tokenizer) -> frozenset[int]:
    """The token that ends a word followed by each breaker, as DRY's author looks them up."""
    if not options.penalties.dry_multiplier:
        return frozenset()
    texts = options.penalties.dry_sequence_breakers
    texts = DRY_BREAKERS if texts is None else texts
    return frozenset(_ids("a" + text, tokenizer)[-1] for text in texts)


def _spellings(words: tuple[str, ...], tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """Each text as it is written and with a space before it, which most tokenizers spell with other tokens."""
    found = (tuple(_ids(text, tokenizer)) for word in words for text in (word, " " + word))
    return tuple(dict.fromkeys(ids for ids in found if ids))


def _ids(text: str, tokenizer: Tokenizer) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
