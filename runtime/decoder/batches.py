"""Many prompts of a decoder: answered in one batch, where the next prompt takes the place of a row that has ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from triform.runtime.bundle.manifest import CacheInfo, Manifest
from triform.runtime.decoder.prompt import Prompt, PromptEncoder
from triform.runtime.errors import InputError
from triform.runtime.generation.answers import Written, written
from triform.runtime.generation.options.beams import Beams, Search, check_search, rows_of
from triform.runtime.generation.options.defaults import with_defaults
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.generation.search.batch import Hypothesis
from triform.runtime.generation.search.choice import request_of, run_search
from triform.runtime.generation.search.continuous import complete, in_order
from triform.runtime.generation.setup import RowSetup, set_up_row
from triform.runtime.graphs.decoder_batch import DecoderBatchStep
from triform.runtime.text.tokenizer import Tokenizer


class PromptBatches:
    """Answers prompts of one decoder graph, several at a time.

    Args:
        session: onnxruntime.InferenceSession of the decoder graph.
        manifest: the bundle's.
        cache: the manifest's cache.
        prompts: turns prompts into ids.
        tokenizer: turns ids into text.
    """

    def __init__(
        self, session: Any, manifest: Manifest, cache: CacheInfo, prompts: PromptEncoder, tokenizer: Tokenizer
    ) -> None:
        self._session, self._manifest, self._cache = session, manifest, cache
        self._prompts, self._tokenizer = prompts, tokenizer

    def answers(
        self,
        prompts: Iterable[Prompt],
        options: GenerationOptions,
        beams: Beams,
        *,
        batch: int,
        prompting: Mapping[str, Any],
    ) -> Iterator[list[Written]]:
        """Answer prompts, of which no more are taken than there is room for.

        Args:
            prompts: texts or messages.
            options: of every answer.
            beams: how many answers to follow at once.
            batch: prompts to run at once.
            prompting: further arguments of `PromptEncoder.prompt_ids`.

        Yields:
            the answers to each prompt, in the order of the prompts: as many as `beams` asks for, the best first.

        Raises:
            InputError: an option that batches do not have, or one prompt is refused; the line says which.
        """
        if batch < 1:
            raise InputError(f"--batch must be at least 1, not {batch}")
        options, search = self.plan(options, beams)
        stop = with_defaults(options, self._manifest.generation, 1).stop
        rows = self._rows(prompts, options, prompting)
        found = self._one_each(rows, batch) if search is None else self._searched(rows, search, batch)
        return ([written(one, self._tokenizer, stop, search is not None) for one in answers] for answers in found)

    def plan(self, options: GenerationOptions, beams: Beams) -> tuple[GenerationOptions, Search | None]:
        """The options and the search that `answers` would go by.

        Raises:
            InputError: an option that batches do not have, or two that contradict each other.
        """
        for name, value in (("speculate", "lookup"), ("on_overflow", "shift")):
            if getattr(options, name) == value:
                raise InputError(
                    f"--{name.replace('_', '-')} {value} is for one answer at a time, without beams; leave it out"
                )
        if options.penalty_alpha is not None:
            raise InputError("--penalty-alpha is for one answer at a time, without beams; leave it out")
        if options.logprobs is not None:
            raise InputError("--logprobs are of one answer at a time, without beams; leave them out")
        options = beams.drawing(options)
        search = beams.settled(self._manifest.generation)
        check_search(search, set_up_row(options, self._manifest, self._tokenizer, 1).options)
        return options, search

    def _rows(
        self, prompts: Iterable[Prompt], options: GenerationOptions, prompting: Mapping[str, Any]
    ) -> Iterator[tuple[list[int], RowSetup]]:
        for index, prompt in enumerate(prompts):
            try:
                ids = self._prompts.prompt_ids(prompt, **prompting)
                self._prompts.check_length(ids, room=1)
                yield ids, set_up_row(options, self._manifest, self._tokenizer, len(ids), index=index)
            except InputError as error:
                raise InputError(f"prompt {index + 1}: {error}") from None

    def _one_each(self, rows: Iterable[tuple[list[int], RowSetup]], batch: int) -> Iterator[list[Hypothesis]]:
        requests = (request_of(ids, setup, self._tokenizer) for ids, setup in rows)
        for one in in_order(complete(self._step(batch), requests, rows=batch, eos=self._manifest.tokens.eos)):
            yield [Hypothesis(one.token_ids, 0.0, one.finish_reason)]

    def _searched(
        self, rows: Iterator[tuple[list[int], RowSetup]], search: Search, batch: int
    ) -> Iterator[list[Hypothesis]]:
        step = self._step(batch * rows_of(search))
        while window := list(islice(rows, batch)):
            ids, setups = zip(*window, strict=True)
            yield from run_search(step, ids, setups, search, self._tokenizer, eos=self._manifest.tokens.eos)

    def _step(self, rows: int) -> DecoderBatchStep:
        return DecoderBatchStep(self._session, self._manifest, self._cache, rows)
