"""What an export tells: the running step, the time each took, and the result."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from triform.export.tested_versions import newer_than_tested
from triform.runtime.bundle.export_record import EncoderParity, EndToken, NewerVersion, Parity

_Item = TypeVar("_Item")


@dataclass(frozen=True)
class StepProgress:
    """How far an export is.

    Attributes:
        step: the name of the running step.
        done: of its parts, such as matrices.
        total: how many parts it has; None where they are not counted.
    """

    step: str
    done: int = 0
    total: int | None = None


Progress = Callable[[StepProgress], None]


class Counted(Protocol):
    """Gives items one after another, and reports how many are done."""

    def __call__(self, items: Collection[_Item], /) -> Iterator[_Item]:
        """The items."""
        ...


def uncounted(items: Collection[_Item], /) -> Iterator[_Item]:
    """The items; reports nothing."""
    return iter(items)


@dataclass(frozen=True)
class FrontierPoint:
    """One way to store a whole model to a goal.

    Attributes:
        size: bytes of the bundle, at most.
        bits: per weight, with scales and zero points.
        damage: estimated; of a decoder KL in nats before error feedback, of an encoder half the squared relative error.
        loss: measured by running it, as a share: the growth of perplexity, 1 - cosine, or the tokens or words that
            change; None where it was not run.
        chosen: whether the bundle is stored so.
        time: of its products, from a table, in what they take in 4 bits with blocks of 64; None where it is not known.
    """

    size: int
    bits: float
    damage: float
    loss: float | None = None
    chosen: bool = False
    time: float | None = None


@dataclass(frozen=True)
class Report:
    """What an export did.

    Attributes:
        bundle: the folder that was made.
        seconds: of each step.
        size_before: bytes of weights that were read.
        size_after: bytes of the bundle.
        parity: how close the graphs are to PyTorch.
        newer_than_tested: installed packages that are newer than what this release was tested with, by package.
        task: what the bundle is for.
        decided_by: what decided the task, in words.
        scheme: how weights are stored: none, int8, int4 or keep.
        scheme_decided_by: what decided that, in words.
        left_out: names of weights of the checkpoint that the bundle does not have: of heads for other tasks, and of
            other parts.
        parts_left_out: of these heads and parts, how many weights each has, the largest first.
        end_tokens: of a decoder, the tokens that end an answer.
        notes: what is otherwise than one would expect, a sentence each.
        frontier: of an export to a goal, ways to store the model, by size.
    """

    bundle: Path
    seconds: dict[str, float]
    size_before: int
    size_after: int
    parity: Parity | EncoderParity
    newer_than_tested: dict[str, NewerVersion]
    task: str = ""
    decided_by: str = ""
    scheme: str = ""
    scheme_decided_by: str = ""
    left_out: tuple[str, ...] = ()
    parts_left_out: dict[str, int] = field(default_factory=dict)
    end_tokens: tuple[EndToken, ...] = ()
    notes: tuple[str, ...] = ()
    frontier: tuple[FrontierPoint, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {**dataclasses.asdict(self), "bundle": str(self.bundle)}


@dataclass
class Clock:
    """Times the steps of an export, names each as it starts, and keeps what is to be told in the end."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    frontier: list[FrontierPoint] = field(default_factory=list)
    _running: str = ""

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time the block as step `name`."""
        self._running = name
        self.progress(StepProgress(name))
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)

    def counted(self, items: Collection[_Item], /) -> Iterator[_Item]:
        """The items, which are parts of the running step; tells how many are done as each is asked for."""
        for index, item in enumerate(items):
            self.progress(StepProgress(self._running, index, len(items)))
            yield item


def finish(bundle: Path, size_before: int, parity: Parity | EncoderParity, clock: Clock) -> Report:
    """Report on a bundle that is in its place, made from `size_before` bytes of weights."""
    size_after = sum(file.stat().st_size for file in bundle.iterdir())
    report = Report(bundle, clock.seconds, size_before, size_after, parity, newer_than_tested())
    points = tuple(sorted(clock.frontier, key=lambda point: point.size))
    return dataclasses.replace(report, notes=tuple(clock.notes), frontier=points)
