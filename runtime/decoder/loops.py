"""Chooses the loop that generates an answer: plain, speculative, with a shifting context, or contrastive search."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from triform.runtime.bundle.manifest import Manifest
from triform.runtime.errors import InputError
from triform.runtime.generation.answers import Watch
from triform.runtime.generation.contrastive import ContrastiveSearch
from triform.runtime.generation.loop import Token, plain_loop
from triform.runtime.generation.setup import Row
from triform.runtime.generation.shifting import ShiftingStep
from triform.runtime.generation.speculation.draft import Draft
from triform.runtime.generation.speculation.forced import ForcedTokens
from triform.runtime.generation.speculation.lookup import look_up
from triform.runtime.generation.speculation.loop import Proposer, speculative_loop
from triform.runtime.generation.steps import KeepingStep
from triform.runtime.graphs.decoding.branches import HiddenStep
from triform.runtime.graphs.decoding.step import DecoderStep

# Cache entries to reserve, in tokens, for an answer without a limit of its own.
_ROOM = 512


class DecoderLoops:
    """The generation loops of one decoder graph.

    Args:
        step: keeps the KV cache of its last generation.
        make_hidden_step: makes a step that returns hidden states, too, for a number of candidates.
        manifest: the bundle's.
    """

    def __init__(self, step: DecoderStep, make_hidden_step: Callable[[int], HiddenStep], manifest: Manifest) -> None:
        self._draft: Draft | None = None
        self._step, self._make_hidden_step, self._manifest = step, make_hidden_step, manifest

    def use_draft(self, draft: Draft) -> None:
        """Have `draft` propose tokens.

        Raises:
            InputError: the model has states of fixed size.
        """
        if self._step.cache.has_states:
            raise InputError(
                "this model cannot use a draft: it has states of fixed size, and rejected tokens cannot be "
                "removed from those"
            )
        self._draft = draft

    def tokens(self, row: Row, watch: Watch) -> Iterator[Token]:
        """The tokens of an answer, generated lazily by the loop that the row's options require.

        Args:
            row: the prompt and its settings.
            watch: records how many prompt tokens were in the cache, and counts proposed and accepted tokens.

        Raises:
            InputError: `keep` leaves no room in the model's context.
            UnsupportedError: contrastive search needs hidden states, which the graph does not return.
        """
        options, context = row.settled.options, self._manifest.max_length
        if options.penalty_alpha is not None:
            hidden = self._make_hidden_step(min(options.top_k or 0, self._manifest.vocab_size))
            return self._contrastive(hidden, row)
        step: KeepingStep = self._step
        if options.on_overflow == "shift":
            step = ShiftingStep(self._step, context, options.keep or 0)
        return self._continued(step, row, self.proposer(row), watch)

    def _continued(self, step: KeepingStep, row: Row, propose: Proposer | None, watch: Watch) -> Iterator[Token]:
        """Generate with the prefix that the cache already holds: plain, or speculative if tokens are proposed."""
        watch.cached_tokens = step.shared(row.ids)
        self._step.cache.reserve(self._length(row))
        self._step.wanted = row.wanted
        before = self._step.copied_bytes
        if propose is None:
            tokens = plain_loop(step, row.ids, row.growing())
        else:
            tokens = speculative_loop(step, row.ids, row.growing(), pace=watch.pace, propose=propose)
        for token in tokens:
            now = self._step.copied_bytes
            watch.copied_bytes = None if now is None or before is None else now - before
            yield token

    def _contrastive(self, step: HiddenStep, row: Row) -> Iterator[Token]:
        step.cache.reserve(self._length(row))
        options = row.settled.options
        search = ContrastiveSearch(
            step,
            row.processors(),
            top_k=options.top_k or 0,
            penalty_alpha=options.penalty_alpha or 0.0,
            room=row.limit,
        )
        yield from plain_loop(search, row.ids, row.growing(search.choose))

    def _length(self, row: Row) -> int:
        """Tokens to reserve in the cache: with a limit, all of them; without one, some, and the cache then doubles."""
        room = row.limit if row.limited else min(row.limit, _ROOM)
        return min(len(row.ids) + room, self._manifest.max_length)

    def proposer(self, row: Row) -> Proposer | None:
        """Proposes tokens that the model checks in one run; None for one token a run.

        Args:
            row: the prompt and its settings.
        """
        if self._step.cache.has_states:
            # Rejected tokens cannot be removed from a state of fixed size.
            return None
        speculate, form = row.settled.options.speculate, row.context.spelled.form
        # A run of several tokens may round its logits differently than single steps. Without a draft model, "auto"
        # therefore speculates only where this cannot change the answer.
        exact = speculate == "lookup" or (speculate == "auto" and not _rounds_activations(self._manifest))
        propose: Proposer | None = None
        if speculate == "auto" and self._draft is not None:
            propose = self._draft
        elif speculate == "lookup" or (exact and row.context.generator is None):
            propose = look_up
        return ForcedTokens(form.constraint(len(row.ids)), propose) if form is not None and exact else propose


def _rounds_activations(manifest: Manifest) -> bool:
    """Whether activations have 8 or 16 bits, so that a token's logits may depend on the tokens run with it."""
    return manifest.target == "gpu" or manifest.graphs["decoder"].quantization.accuracy_level == 4
