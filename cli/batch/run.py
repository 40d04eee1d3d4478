"""A batch from its arguments to its folder: plans, computes what is missing, and gathers errors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from triform.cli.batch.blocks import BlockWriter, Counts
from triform.cli.batch.folder import OutputFolder
from triform.cli.batch.planning import find_files, plan
from triform.cli.batch.units import Unit
from triform.cli.outputs.notes import say
from triform.cli.outputs.run_log import Run
from triform.runtime.batch.predictor import Predictor
from triform.runtime.batch.texts import require_pyarrow
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.bundle.outside import check_outside_bundles
from triform.runtime.errors import InputError, TriformError, option

if TYPE_CHECKING:
    from triform.runtime.batch.opened import RowTask
    from triform.runtime.opening import LoadOptions


@dataclass(frozen=True)
class BatchRun:
    """What to run over what.

    Attributes:
        bundle: the bundle's folder.
        inputs: names of files and folders, and patterns.
        column: that holds the texts, or names of recordings.
        output: the folder to write.
        block_rows: rows of a file in it; the task's own number when None.
        cluster: the address of a Ray cluster; this machine alone when None.
        workers: models at once on a cluster; as many as its cores allow when None.
    """

    bundle: Path
    inputs: Sequence[str]
    column: str
    output: Path
    block_rows: int | None
    cluster: str | None
    workers: int | None

    def rows_of(self, task: RowTask) -> int:
        """Rows of a file in `output`."""
        return task.rows if self.block_rows is None else self.block_rows


def run_batch(batch: BatchRun, task: RowTask, loading: LoadOptions) -> int:
    """Compute what is not there yet, and say how much that was.

    Returns:
        the command's exit code.

    Raises:
        InputError: an input cannot be read, or the folder holds something else.
        TriformError: the model cannot be loaded, or cannot run; or no row has results.
    """
    require_pyarrow()
    # Before inputs are read; the bundle's digest is that of its manifest.
    open_bundle(batch.bundle)
    check_outside_bundles(batch.output)
    rows = batch.rows_of(task)
    files = find_files(batch.inputs, task.reads, batch.output)
    units = plan(files, batch.column, rows)
    given = task.settings() | {"column": batch.column, "block_rows": rows, "inputs": _fingerprints(files)}
    folder = OutputFolder(batch.output.absolute(), Run(batch.bundle, given).digests())
    with folder.alone():
        counts = _compute(batch, task, loading, units, folder)
        failed, first = folder.write_errors()
    _say_counts(batch, counts, failed)
    if failed and failed == counts.computed + counts.present:
        raise TriformError(f"no row has results; the first is {first}")
    return 0


def _compute(
    batch: BatchRun,
    task: RowTask,
    loading: LoadOptions,
    units: Sequence[Unit],
    folder: OutputFolder,
) -> Counts:
    rows = batch.rows_of(task)
    if batch.cluster is None:
        predictor = Predictor(batch.bundle, task, column=batch.column, **loading)
        folder.begin()
        return _sum(_here(BlockWriter(predictor, folder, batch.column, rows), units), batch)
    from triform.cli.batch.cluster import WorkerJob, cluster, on_cluster
    from triform.cli.batch.shared_bundle import share

    with cluster(batch.cluster):
        folder.begin()
        job = WorkerJob(share(batch.bundle), task, _on_one_core(loading), units, folder, batch.column, rows)
        return _sum(on_cluster(job, batch.workers), batch)


def _here(writer: BlockWriter, units: Sequence[Unit]) -> Iterator[Counts]:
    for unit in units:
        yield from writer.write(unit)


def _on_one_core(loading: LoadOptions) -> LoadOptions:
    """The options of each model on a cluster: one thread unless --threads says otherwise.

    Raises:
        InputError: they name a provider other than the CPU.
    """
    provider = loading.get("provider", "auto")
    if provider not in ("auto", "cpu"):
        raise InputError(f"{option('cluster')} runs models on CPUs only: leave {option('provider')} {provider} out")
    return {**loading, "provider": "cpu", "threads": loading.get("threads") or 1}


def _sum(done: Iterable[Counts], batch: BatchRun) -> Counts:
    counts = Counts()
    try:
        for some in done:
            counts += some
    except BaseException:
        if counts != Counts():
            say(f"note: the results so far are in {batch.output}; the same command continues")
        raise
    return counts


def _fingerprints(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """The name, size and time of each file: reading all of them again would take long."""
    return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]


def _say_counts(batch: BatchRun, counts: Counts, failed: int) -> None:
    if counts.present:
        say(f"note: {counts.present} rows were already there from an earlier run")
    if counts.damaged:
        first, *others, _ = counts.damaged.split("/")
        also = f" and {len(others)} others were" if others else " was"
        say(f"note: {batch.output / 'rows' / first}{also} damaged, and computed again")
    if counts.truncated:
        say(f"note: cut {counts.truncated} texts that are longer than the model reads; --strict refuses such texts")
    if failed:
        say(f"note: {failed} rows have no results; {batch.output / 'errors.parquet'} says why")
    if counts == Counts():
        say("note: the input has no rows")
    say(f"{counts.computed} rows computed, {counts.computed + counts.present} in {batch.output / 'rows'}")
