"""Computes and writes the blocks of a unit: the work of one machine, and of each worker of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from triform.cli.batch.block_file import is_whole, write_block
from triform.cli.batch.folder import INPUT_FILE, INPUT_ROW, OutputFolder
from triform.cli.batch.units import Block, Unit, named
from triform.runtime.batch.predictor import ERROR, Predictor
from triform.runtime.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Counts:
    """What was done.

    Attributes:
        computed: rows whose results were computed.
        present: rows whose results an earlier run had left.
        truncated: computed texts that were longer than the model reads, and were cut.
        damaged: names of blocks that an earlier run had left, and that were computed again, with a slash after each.
    """

    computed: int = 0
    present: int = 0
    truncated: int = 0
    damaged: str = ""

    def __add__(self, other: Counts) -> Counts:
        """The sum of both."""
        return Counts(
            self.computed + other.computed,
            self.present + other.present,
            self.truncated + other.truncated,
            self.damaged + other.damaged,
        )


@dataclass(frozen=True)
class BlockWriter:
    """Computes blocks with one model.

    Attributes:
        predictor: the model.
        folder: where blocks go.
        column: that holds the inputs.
        rows: rows of a block.
    """

    predictor: Predictor
    folder: OutputFolder
    column: str
    rows: int

    def write(self, unit: Unit) -> Iterator[Counts]:
        """Compute the blocks of a unit that have no file yet, or a damaged one; yields after each block.

        Raises:
            InputError: the input cannot be read, or a block cannot be written.
            TriformError: the model cannot run.
        """
        for block in unit.blocks(self.column, self.rows):
            path, count = self.folder.block(unit, block.start, len(block.table)), len(block.table)
            is_there = path.exists()
            if is_there and is_whole(path, self.folder.digests):
                yield Counts(present=count)
                continue
            before = self.predictor.truncated
            write_block(path, self._results(unit.input_file, block), self.folder.digests)
            damaged = f"{path.name}/" if is_there else ""
            yield Counts(computed=count, truncated=self.predictor.truncated - before, damaged=damaged)

    def _results(self, input_file: Path | None, block: Block) -> pa.Table:
        import pyarrow as pa

        taken = {INPUT_FILE, INPUT_ROW} & set(block.table.schema.names)
        if taken:
            raise InputError(f"{input_file} already has a column called {min(taken)!r}: rename it")
        with named(input_file):
            table = self.predictor(block.table)
        if any(block.problems):
            errors = [
                problem or error for problem, error in zip(block.problems, table.column(ERROR).to_pylist(), strict=True)
            ]
            table = table.set_column(len(table.schema) - 1, ERROR, pa.array(errors, pa.string()))
        # A recording is its own file.
        files = table.column(self.column) if input_file is None else pa.array([str(input_file)] * len(table))
        numbers = pa.array(range(block.start, block.start + len(table)), pa.int64())
        return table.add_column(0, INPUT_ROW, numbers).add_column(0, INPUT_FILE, files)
