"""Many prompts of a decoder: answered in one batch, where the next prompt takes the place of a row that has ended."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from triform.runtime.bundle.manifest import CacheInfo, Manifest
from triform.runtime.decoder.prompt import PromptEncoder, PromptInput
from triform.runtime.errors import InputError
from triform.runtime.generation.answers import Watch, Written, best_answer, written
from triform.runtime.generation.options.beams import Search, rows_of
from triform.runtime.generation.search.batch import Hypothesis
from triform.runtime.generation.search.choice import run_search, single_request
from triform.runtime.generation.search.continuous import complete, in_order
from triform.runtime.generation.setup import Row, Settled
from triform.runtime.graphs.decoder_batch import DecoderBatchStep


class PromptBatches:
    """Answers prompts of one decoder graph, several at a time.

    Args:
        session: onnxruntime.InferenceSession of the decoder graph.
        manifest: the bundle's.
        cache: the manifest's cache.
        prompts: turns prompts into ids.
    """

    def __init__(self, session: Any, manifest: Manifest, cache: CacheInfo, prompts: PromptEncoder) -> None:
        self._session, self._manifest, self._cache, self._prompts = session, manifest, cache, prompts

    def answers(self, prompts: Iterable[PromptInput], settled: Settled, batch: int) -> Iterator[list[Written]]:
        """Answer prompts, of which no more are taken than there is room for.

        Args:
            prompts: any number.
            settled: what holds for all answers.
            batch: prompts to run at once.

        Yields:
            the answers to each prompt, in the order of the prompts: as many as the search returns, the best first.

        Raises:
            InputError: a prompt is refused; the line says which.
        """
        rows, search = self._rows(prompts, settled), settled.search
        hypotheses = self._one_each(rows, settled, batch) if search is None else self._searched(rows, search, batch)
        for answers in hypotheses:
            yield [written(hypothesis, settled) for hypothesis in answers]

    def best(self, row: Row, settled: Settled, watch: Watch) -> Written:
        """The best answer to one prompt. Arguments and errors as `best_answer`."""
        return best_answer(self._step(rows_of(settled.search)), row, settled, watch)

    def _rows(self, prompts: Iterable[PromptInput], settled: Settled) -> Iterator[Row]:
        for index, prompt in enumerate(prompts):
            try:
                yield settled.row(self._prompts.prompt_ids(prompt), index)
            except InputError as error:
                raise InputError(f"prompt {index + 1}: {error}") from None

    def _one_each(self, rows: Iterable[Row], settled: Settled, batch: int) -> Iterator[list[Hypothesis]]:
        requests = (single_request(row) for row in rows)
        for answer in in_order(complete(self._step(batch), requests, rows=batch, eos=settled.eos)):
            yield [Hypothesis(answer.token_ids, 0.0, answer.finish_reason)]

    def _searched(self, rows: Iterator[Row], search: Search, batch: int) -> Iterator[list[Hypothesis]]:
        step = self._step(batch * rows_of(search))
        while window := list(islice(rows, batch)):
            yield from run_search(step, window, search)

    def _step(self, rows: int) -> DecoderBatchStep:
        return DecoderBatchStep(self._session, self._manifest, self._cache, rows)
