"""Runs a decoder's float graph with the weights of a few layers in memory at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch

from triform.export.report import Counted, uncounted
from triform.export.runners import EncoderRunner, Feeding, Result, empty_cache, present_of
from triform.export.samples.batches import Array
from triform.export.verify.segments import Segment, cut_into_segments
from triform.export.write import Stored, write_graph
from triform.runtime.bundle.manifest import CacheInfo

# Bytes of a segment's weights in float32, and rows of logits that are in memory at once.
_LIMIT, _ROWS = 2**27, 640


class SegmentedDecoder:
    """A decoder's float graph on disk, without its large weights.

    All texts are run through one segment before the next, so that each weight is converted to float32 once. What comes
    after the layers, such as the language-model head, is run for a few texts at a time, whose logits fit into memory.
    """

    def __init__(self, model: ir.Model, folder: Path, cache: CacheInfo, threads: int) -> None:
        """Cut a graph and write its segments.

        Args:
            model: lowered to float; taken apart.
            folder: to write into; must stay while it runs.
            cache: what it keeps of a text.
            threads: to run on.
        """
        self._outputs = [str(value.name) for value in model.graph.outputs]
        states = {
            name: present_of(name) for name in (str(value.name) for value in model.graph.inputs) if _is_past(name)
        }
        graph = cut_into_segments(model, _LIMIT, states)
        self._segments, self._lookups = graph.segments, graph.lookups
        self._cache, self._threads, self._folder = cache, threads, folder
        stored: Stored = {}
        for index, segment in enumerate(self._segments):
            write_graph(segment.model, self._path(index), stored)
        self._memory = torch.empty(max(map(_numbers_to_convert, self._segments)))

    def _path(self, index: int) -> Path:
        return self._folder / f"segment{index}.onnx"

    def run(self, feedings: Sequence[Feeding], counted: Counted = uncounted) -> Iterator[Result]:
        """Feed texts, each from an empty cache.

        Args:
            feedings: the texts.
            counted: reports how many segments are done, those of the head once for each group of texts.

        Yields:
            the results of each chunk of each text, in order.
        """
        texts = [_Text(feeding, self._lookups) for feeding in feedings]
        for index, group in counted(self._order(texts)):
            self._advance(group, index)
            if index == len(self._segments) - 1:
                for text in group:
                    yield from text.results()

    def _order(self, texts: list[_Text]) -> list[tuple[int, list[_Text]]]:
        """Which segments run, each on which texts: the layers on all, then the head on some at a time."""
        layers = 1 + max(
            (index for index, segment in enumerate(self._segments) if any(map(_is_past, segment.inputs))), default=0
        )
        of_head = range(layers, len(self._segments))
        groups = list(_groups(texts)) if of_head else [texts]
        return [(index, texts) for index in range(layers)] + [(index, group) for group in groups for index in of_head]

    def _advance(self, texts: Sequence[_Text], index: int) -> None:
        """Run a segment on texts."""
        weights = _in_float32(self._segments[index], self._memory)
        runner = EncoderRunner(self._path(index), self._threads)
        later = {name for segment in self._segments[index + 1 :] for name in segment.inputs}
        for text in texts:
            text.advance(runner, weights, self._cache, later.union(self._outputs))


def _is_past(name: str) -> bool:
    return name.startswith(("past_key_values.", "past_states."))


def _groups(texts: Sequence[_Text]) -> Iterator[list[_Text]]:
    """Texts in order, some at a time."""
    group: list[_Text] = []
    for text in texts:
        if group and sum(item.rows for item in group) + text.rows > _ROWS:
            yield group
            group = []
        group.append(text)
    yield group


def _numbers_to_convert(segment: Segment) -> int:
    return sum(piece.numel() for pieces in segment.weights.values() if not _is_ready(pieces) for piece in pieces)


def _is_ready(pieces: tuple[torch.Tensor, ...]) -> bool:
    """Whether a weight can be read as it is stored."""
    return len(pieces) == 1 and pieces[0].dtype == torch.float32 and pieces[0].is_contiguous()


def _in_float32(segment: Segment, memory: torch.Tensor) -> dict[str, Array]:
    """A segment's weights by name, converted into `memory` where they are not ready."""
    weights, start = {}, 0
    for name, pieces in segment.weights.items():
        if _is_ready(pieces):
            weights[name] = pieces[0].numpy()
            continue
        first = start
        for piece in pieces:
            memory[start : start + piece.numel()].view(piece.shape).copy_(piece)
            start += piece.numel()
        weights[name] = memory[first:start].view(-1, *pieces[0].shape[1:]).numpy()
    return weights


class _Text:
    """One text on its way through the segments.

    Attributes:
        rows: how many rows of logits it gives.
    """

    def __init__(self, feeding: Feeding, lookups: Mapping[str, torch.Tensor]) -> None:
        self._feeding = feeding
        # Of each chunk, the values that later segments read, or that are outputs.
        self._values: list[dict[str, Array]] = []
        self.rows = sum(chunk.positions.size for chunk in feeding.chunks)
        lengths = np.zeros(feeding.batch, np.int32)
        for chunk in feeding.chunks:
            ids = torch.from_numpy(chunk.input_ids)
            rows = {name: table[ids].float().numpy() for name, table in lookups.items()}
            self._values.append({**chunk.feeds(lengths), **rows})
            lengths = lengths + chunk.new_lengths

    def advance(
        self, runner: EncoderRunner, weights: Mapping[str, Array], cache: CacheInfo, kept: Collection[str]
    ) -> None:
        """Run one segment on every chunk, and keep the values that `kept` names."""
        past = empty_cache(cache, self._feeding.batch, self._feeding.capacity)
        past = {name: past[name] for name in runner.inputs if name in past}
        for index, values in enumerate(self._values):
            known = {**values, **past, **weights}
            results = runner.run({name: known[name] for name in runner.inputs})
            past = {name: results.pop(present_of(name)) for name in past}
            # A result is a view of the session's memory, all of which it would keep alive.
            results = {name: value.copy() for name, value in results.items() if name in kept}
            self._values[index] = {name: value for name, value in values.items() if name in kept} | results

    def results(self) -> Iterator[Result]:
        """Logits and other outputs of each chunk, which are given away."""
        while self._values:
            values = self._values.pop(0)
            yield values.pop("logits"), values
