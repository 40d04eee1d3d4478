"""Continuous batching: prompts join a running batch as soon as others leave it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from triform.runtime.generation.search.batch import Request, growing_row, most_wanted
from triform.runtime.generation.steps import FinishReason, OpenBatchStep
from triform.runtime.likeliest import Scores


@dataclass(frozen=True)
class FinishedRow:
    """The answer to one prompt of a stream.

    Attributes:
        index: of the prompt in the stream, from 0.
        token_ids: the generated tokens, an end-of-sequence token included.
        finish_reason: "stop" after an end-of-sequence token, or where the request's `ends` is true.
    """

    index: int
    token_ids: tuple[int, ...]
    finish_reason: FinishReason


class _Row:
    """An unfinished sequence."""

    def __init__(self, index: int, request: Request, eos: Collection[int]) -> None:
        self._index, self._row, self.request = index, growing_row(request, eos), request
        self._reason: FinishReason | None = None

    def choose(self, scores: Scores) -> None:
        """Append the sampler's token."""
        self._reason = self._row.choose(scores).finish_reason

    @property
    def last(self) -> int:
        return int(self._row.ids[-1])

    @property
    def completion(self) -> FinishedRow | None:
        """The answer if the row has ended."""
        return None if self._reason is None else FinishedRow(self._index, self._row.answer, self._reason)


def complete(
    step: OpenBatchStep, requests: Iterable[Request], *, rows: int, eos: Collection[int]
) -> Iterator[FinishedRow]:
    """Answer a stream of prompts, up to `rows` at a time.

    A row that has ended leaves the batch before the next step. The next prompt takes its place; its prefill runs
    while the others wait. A prompt is taken from the stream only when there is room for it.

    Args:
        step: the model; its batch is emptied first.
        requests: the prompts and their samplers. Check their lengths first: one that outgrows the context ends the
            whole stream.
        rows: at least 1.
        eos: tokens that end a sequence.

    Yields:
        answers as they finish; see `in_order`.

    Raises:
        InputError: a sequence outgrows the model's context, or the cache does not fit into memory.
        TriformError: onnxruntime failed, or the logits are not numbers.
    """
    waiting = (_Row(index, request, eos) for index, request in enumerate(requests))
    live: list[_Row] = []
    step.select([])
    while True:
        while joining := list(islice(waiting, rows - len(live))):
            step.wanted = most_wanted([row.request.wanted for row in joining])
            table = step.join([row.request.ids for row in joining])
            for row, scores in zip(joining, table, strict=True):
                row.choose(scores)
            live, ended = _part(step, [*live, *joining])
            yield from ended
        if not live:
            return
        step.wanted = most_wanted([row.request.wanted for row in live])
        table = step.next([row.last for row in live], range(len(live)))
        for row, scores in zip(live, table, strict=True):
            row.choose(scores)
        live, ended = _part(step, live)
        yield from ended


def _part(step: OpenBatchStep, rows: list[_Row]) -> tuple[list[_Row], list[FinishedRow]]:
    """Remove finished rows from the batch; returns the other rows, and the finished ones' answers."""
    completions = [row.completion for row in rows]
    staying = [place for place, completion in enumerate(completions) if completion is None]
    if len(staying) < len(rows):
        step.select(staying)
    return [rows[place] for place in staying], [completion for completion in completions if completion is not None]


def in_order(completions: Iterable[FinishedRow]) -> Iterator[FinishedRow]:
    """The same answers in the order of their prompts, each as soon as all before it have been yielded."""
    early: dict[int, FinishedRow] = {}
    due = 0
    for completion in completions:
        early[completion.index] = completion
        while due in early:
            yield early.pop(due)
            due += 1
