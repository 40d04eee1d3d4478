"""Answers many prompts in one batch: when a row's answer ends, the next prompt takes the row (continuous batching)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from triform.runtime.bundle.manifest import CacheInfo, Manifest
from triform.runtime.decoder.prompt import PromptEncoder, PromptInput
from triform.runtime.errors import InputError
from triform.runtime.generation.answers import Completion, Watch, best_answer, completion_of
from triform.runtime.generation.options.beams import Search, rows_of
from triform.runtime.generation.search.batch import Hypothesis
from triform.runtime.generation.search.choice import run_search, single_request
from triform.runtime.generation.search.continuous import complete, in_order
from triform.runtime.generation.setup import Row, Settled
from triform.runtime.graphs.decoding.batch import DecoderBatchStep
from triform.runtime.graphs.decoding.prompts import PromptGraphs


class PromptBatches:
    """Answers several prompts at a time with one decoder graph.

    Args:
        session: onnxruntime.InferenceSession of the decoder graph.
        manifest: the bundle's.
        cache: the manifest's description of the KV cache.
        prompts: turns prompts into token ids.
        graphs: what reads them.
    """

    def __init__(
        self, session: Any, manifest: Manifest, cache: CacheInfo, prompts: PromptEncoder, graphs: PromptGraphs
    ) -> None:
        self._session, self._manifest, self._cache, self._prompts = session, manifest, cache, prompts
        self._graphs = graphs

    def answers(self, prompts: Iterable[PromptInput], settled: Settled, batch: int) -> Iterator[list[Completion]]:
        """Answer prompts. They are read lazily, one whenever a row is free.

        Args:
            prompts: any number of prompts.
            settled: the settings of the call.
            batch: number of prompts to run at once.

        Yields:
            the answers to each prompt, in the order of the prompts: as many as the search returns, the best first.

        Raises:
            InputError: a prompt is refused; the message gives its number, counted from 1.
        """
        rows, search = self._rows(prompts, settled), settled.search
        hypotheses = self._generated(rows, settled, batch) if search is None else self._searched(rows, search, batch)
        for answers in hypotheses:
            yield [completion_of(hypothesis, settled) for hypothesis in answers]

    def best(self, row: Row, settled: Settled, watch: Watch) -> Completion:
        """The best answer to one prompt. Arguments and errors as `best_answer`."""
        return best_answer(self._step(rows_of(settled.search)), row, settled, watch)

    def _rows(self, prompts: Iterable[PromptInput], settled: Settled) -> Iterator[Row]:
        for index, prompt in enumerate(prompts):
            try:
                yield settled.row(self._prompts.prompt_ids(prompt), index)
            except InputError as error:
                raise InputError(f"prompt {index + 1}: {error}") from None

    def _generated(self, rows: Iterable[Row], settled: Settled, batch: int) -> Iterator[list[Hypothesis]]:
        requests = (single_request(row) for row in rows)
        for answer in in_order(complete(self._step(batch), requests, rows=batch, eos=settled.eos)):
            yield [Hypothesis(answer.token_ids, 0.0, answer.finish_reason)]

    def _searched(self, rows: Iterator[Row], search: Search, batch: int) -> Iterator[list[Hypothesis]]:
        step = self._step(batch * rows_of(search))
        while window := list(islice(rows, batch)):
            yield from run_search(step, window, search)

    def _step(self, rows: int) -> DecoderBatchStep:
        return DecoderBatchStep(self._session, self._manifest, self._cache, rows, self._graphs)
