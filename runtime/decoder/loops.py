"""Which loop a decoder's answer is made by: one token after another, with proposals, for ever, or contrastive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from triform.runtime.bundle.manifest import Manifest
from triform.runtime.generation.answers import Watch
from triform.runtime.generation.contrastive import ContrastiveSearch
from triform.runtime.generation.logprobs import TokenLogprobs, token_logprobs
from triform.runtime.generation.loop import GrowingRow, Token, plain_loop
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.sampling import Sampler
from triform.runtime.generation.setup import RowSetup
from triform.runtime.generation.shifting import ShiftingStep
from triform.runtime.generation.speculation.draft import Draft
from triform.runtime.generation.speculation.forced import ForcedTokens
from triform.runtime.generation.speculation.lookup import look_up
from triform.runtime.generation.speculation.loop import Proposer, speculative_loop
from triform.runtime.generation.speculation.pace import Pace
from triform.runtime.generation.steps import Logits, SpeculativeStep
from triform.runtime.graphs.decoder_branches import HiddenStep
from triform.runtime.graphs.decoder_step import DecoderStep
from triform.runtime.text.tokenizer import Tokenizer

# Room made at first for an answer of unknown length.
_ROOM = 512


class DecoderLoops:
    """The loops over one decoder graph.

    Args:
        step: that keeps what was read and written last.
        make_hidden_step: from a number of candidates to a step that gives hidden states, too.
        manifest: the bundle's.
        tokenizer: for the texts of log-probabilities.

    Attributes:
        draft: proposes tokens, where there is one.
    """

    def __init__(
        self,
        step: DecoderStep,
        make_hidden_step: Callable[[int], HiddenStep],
        manifest: Manifest,
        tokenizer: Tokenizer,
    ) -> None:
        self.draft: Draft | None = None
        self._step, self._make_hidden_step = step, make_hidden_step
        self._manifest, self._tokenizer = manifest, tokenizer

    def check(self, options: GenerationOptions) -> None:
        """Refuse now what `tokens` would refuse.

        Raises:
            InputError: the options do not fit the model's context.
            UnsupportedError: they need hidden states, which the graph does not give.
        """
        if options.penalty_alpha is None:
            self._step_for(options)
        else:
            self._hidden_step(options)

    def tokens(self, ids: list[int], setup: RowSetup, watch: Watch) -> Iterator[Token]:
        """Begin the loop that the options ask for.

        Args:
            ids: the prompt, at least one token.
            setup: from `set_up_row`.
            watch: told how many tokens need not be run, and of proposals.
        """
        # With a limit the cache is made once; without one it grows by doubling.
        length = len(ids) + (setup.limit if setup.options.max_new_tokens else min(setup.limit, _ROOM))
        length = min(length, self._manifest.max_length)
        if setup.options.penalty_alpha is not None:
            hidden = self._hidden_step(setup.options)
            hidden.cache.reserve(length)
            return contrastive_tokens(hidden, ids, setup, self._tokenizer)
        step = self._step_for(setup.options)
        watch.cached_tokens = step.shared(ids)
        self._step.cache.reserve(length)
        return row_tokens(step, ids, setup, self._tokenizer, propose=self._proposer(setup), pace=watch.pace)

    def _hidden_step(self, options: GenerationOptions) -> HiddenStep:
        return self._make_hidden_step(min(options.top_k or 0, self._manifest.vocab_size))

    def _proposer(self, setup: RowSetup) -> Proposer | None:
        guess: Proposer | None = look_up if setup.looks_up else None
        if setup.options.speculate == "auto" and self.draft is not None:
            guess = self.draft
        form = setup.row.form
        if form is None or not setup.fast_forwards:
            return guess
        return ForcedTokens(form(), guess)

    def _step_for(self, options: GenerationOptions) -> DecoderStep | ShiftingStep:
        if options.on_overflow == "error":
            return self._step
        return ShiftingStep(self._step, self._manifest.max_length, options.keep or 0)


def row_tokens(
    step: SpeculativeStep,
    ids: Sequence[int],
    setup: RowSetup,
    tokenizer: Tokenizer,
    *,
    propose: Proposer | None,
    pace: Pace,
) -> Iterator[Token]:
    """Generate one row.

    Args:
        step: the model.
        ids: the prompt, at least one token.
        setup: from `set_up_row`.
        tokenizer: for the texts of log-probabilities.
        propose: gives tokens to try in one run; None takes one after another.
        pace: says how many, and learns what became of them.

    Yields:
        one `Token` at a time.
    """
    row = _growing_row(ids, setup, tokenizer, setup.sampler())
    if propose is None:
        return plain_loop(step, ids, row)
    return speculative_loop(step, ids, row, pace=pace, propose=propose)


def contrastive_tokens(step: HiddenStep, ids: Sequence[int], setup: RowSetup, tokenizer: Tokenizer) -> Iterator[Token]:
    """Generate one row by contrastive search. Arguments and result as `row_tokens`."""
    asked = setup.options
    search = ContrastiveSearch(
        step,
        setup.processors(),
        top_k=asked.top_k or 0,
        penalty_alpha=asked.penalty_alpha or 0.0,
        room=setup.limit,
    )
    return plain_loop(search, ids, _growing_row(ids, setup, tokenizer, search.choose))


def _growing_row(ids: Sequence[int], setup: RowSetup, tokenizer: Tokenizer, sampler: Sampler) -> GrowingRow:
    count = setup.options.logprobs

    def observe(logits: Logits, token: int) -> TokenLogprobs:
        return token_logprobs(tokenizer, logits, token, count or 0)

    return GrowingRow(
        ids,
        sampler,
        eos=setup.row.eos,
        max_new_tokens=setup.limit,
        observe=None if count is None else observe,
    )
