"""Continuous batching: prompts enter a running batch as soon as others have left it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from triform.runtime.batch import OpenBatchStep, Request
from triform.runtime.loop import FinishReason


@dataclass(frozen=True)
class Completion:
    """The answer to one prompt of a stream.

    Attributes:
        index: which prompt, from 0, in the order they came.
        token_ids: what was generated, an end-of-sequence token included.
        finish_reason: "stop" after an end-of-sequence token, or where the request says so.
    """

    index: int
    token_ids: tuple[int, ...]
    finish_reason: FinishReason


@dataclass
class _Row:
    """A sequence being written; `ids` has room for the whole of it, `length` of it is there."""

    index: int
    request: Request
    ids: NDArray[np.int64] = field(init=False)
    length: int = field(init=False)
    stopped: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.length = len(self.request.ids)
        self.ids = np.empty(self.length + self.request.max_new_tokens, np.int64)
        self.ids[: self.length] = self.request.ids

    def choose(self, logits: NDArray[np.float32]) -> None:
        """Append the sampler's token."""
        token = self.request.sampler(self.ids[: self.length], logits)
        self.ids[self.length] = token
        self.length += 1
        self.stopped = self.request.ends(token)

    @property
    def last(self) -> int:
        return int(self.ids[self.length - 1])

    def completion(self, eos: Collection[int]) -> Completion | None:
        """What came of it if it has ended."""
        stopped = self.stopped or self.last in eos
        if not stopped and self.length < len(self.ids):
            return None
        answer = self.ids[len(self.request.ids) : self.length]
        return Completion(self.index, tuple(answer.tolist()), "stop" if stopped else "length")


def complete(
    step: OpenBatchStep, requests: Iterable[Request], *, rows: int, eos: Collection[int]
) -> Iterator[Completion]:
    """Answer a stream of prompts, up to `rows` at a time.

    A row that has ended leaves the batch before the next step, and the next prompt of the stream is read in its place,
    alone, while the others wait. A prompt is taken from the stream when there is room for it, not earlier.

    Args:
        step: the model; its batch is emptied first.
        requests: the prompts; each one's sampler chooses its tokens. Check their lengths before: one that outgrows the
            context ends the whole stream.
        rows: at least 1.
        eos: tokens that end a sequence.

    Yields:
        answers as they finish; see `in_order`.

    Raises:
        InputError: a sequence outgrows the model's context, or the cache does not fit into memory.
        TriformError: onnxruntime failed, or the logits are not numbers.
    """
    waiting = (_Row(index, request) for index, request in enumerate(requests))
    live: list[_Row] = []
    step.select([])
    while True:
        while len(live) < rows and (row := next(waiting, None)) is not None:
            row.choose(step.join(row.request.ids))
            live, ended = _part(step, [*live, row], eos)
            yield from ended
        if not live:
            return
        logits = step.next([row.last for row in live], range(len(live)))
        for row, scores in zip(live, logits, strict=True):
            row.choose(scores)
        live, ended = _part(step, live, eos)
        yield from ended


def _part(step: OpenBatchStep, rows: list[_Row], eos: Collection[int]) -> tuple[list[_Row], list[Completion]]:
    """Take rows that have ended out of the batch; give the others, and what came of those."""
    completions = [row.completion(eos) for row in rows]
    staying = [place for place, completion in enumerate(completions) if completion is None]
    if len(staying) < len(rows):
        step.select(staying)
    return [rows[place] for place in staying], [completion for completion in completions if completion is not None]


def in_order(completions: Iterable[Completion]) -> Iterator[Completion]:
    """The same answers in the order of their prompts, each as soon as all before it are there."""
    early: dict[int, Completion] = {}
    due = 0
    for completion in completions:
        early[completion.index] = completion
        while due in early:
            yield early.pop(due)
            due += 1
