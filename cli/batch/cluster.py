"""Computes the blocks of a batch on a cluster, by Ray Data.

What flows through Ray are the numbers of units and what was done with each. A worker reads its unit's rows itself, and
writes its blocks itself, as one machine does; so a unit that is done again, because a worker or a machine was lost,
leaves out the blocks that are there, and a block that was half written has no name.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from triform.cli.batch.blocks import BlockWriter, Counts
from triform.cli.batch.folder import OutputFolder
from triform.cli.batch.shared_bundle import SharedBundle, temporary_folder
from triform.cli.batch.units import Unit
from triform.runtime.batch.predictor import Predictor
from triform.runtime.errors import InputError, TriformError, option
from triform.runtime.extras import missing_extra

if TYPE_CHECKING:
    from triform.runtime.batch.opened import RowTask
    from triform.runtime.opening import LoadOptions

# In seconds, until an address counts as dead. Ray itself tries for minutes.
_PATIENCE = 5.0
# Ray plans for each task of its own; above so many units several are one task.
_TASKS = 10_000


@dataclass(frozen=True)
class WorkerJob:
    """What each worker does.

    Attributes:
        bundle: the model's.
        task: see `Predictor`.
        loading: see `load`; the threads of one model among it.
        units: all of the batch's.
        folder: where blocks go.
        column: that holds the inputs.
        rows: rows of a block.
    """

    bundle: SharedBundle
    task: RowTask
    loading: LoadOptions
    units: Sequence[Unit]
    folder: OutputFolder
    column: str
    rows: int


class Worker:
    """An actor with one model, which it loads for its first unit.

    What goes wrong is returned, not raised: Ray keeps the text of an exception only.
    """

    def __init__(self, job: WorkerJob) -> None:
        """Remember the job."""
        self._job = job
        self._writer: BlockWriter | None = None

    def __call__(self, numbers: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
        """Compute units, given by their numbers; return what was done, and what went wrong."""
        counts, failure, is_usage = Counts(), "", False
        try:
            self._writer = self._writer or self._opened()
            for number in numbers["item"]:
                for done in self._writer.write(self._job.units[number]):
                    counts += done
        except TriformError as error:
            failure, is_usage = str(error), isinstance(error, InputError)
        done_and_failed = asdict(counts) | {"failure": failure, "is_usage": is_usage}
        return {name: [value] for name, value in done_and_failed.items()}

    def _opened(self) -> BlockWriter:
        job = self._job
        predictor = Predictor(job.bundle.here(temporary_folder()), job.task, column=job.column, **job.loading)
        return BlockWriter(predictor, job.folder, job.column, job.rows)


@contextmanager
def cluster(address: str) -> Iterator[None]:
    """Connect to a cluster.

    Args:
        address: of a cluster; ``auto`` for the one that runs on this machine; ``local`` to start one here for as long
            as the context lasts.

    Raises:
        UnsupportedError: Ray is not installed.
        InputError: there is no such cluster.
    """
    if address not in ("auto", "local"):
        _check_answers(address)
    try:
        # Nothing is sent anywhere.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        import ray.data
    except ImportError:
        raise missing_extra("clusters need ray[data]", "cluster") from None
    try:
        # A cluster that runs has its own dashboard, or none; Ray refuses to be told.
        own = {"include_dashboard": False} if address == "local" else {}
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **own)
    except ConnectionError:
        raise InputError(
            f"{option('cluster')} {address}: no cluster runs here; start one with `ray start --head`, "
            "or give an address"
        ) from None
    except Exception as error:  # a plain one, where the processes of a new cluster take too long to start
        raise TriformError(f"{option('cluster')} {address}: {_first_line(error)}") from None
    try:
        yield
    finally:
        ray.shutdown()


def on_cluster(job: WorkerJob, workers: int | None) -> Iterator[Counts]:
    """Compute the units of a job on the cluster that is connected; yields what was done for each, in any order.

    Args:
        job: what to do.
        workers: models at once; as many as the cluster's cores allow when None.

    Raises:
        TriformError: what a worker raised, or the cluster failed.
    """
    import logging

    import ray
    import ray.data
    from ray.exceptions import RayError

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    threads = job.loading.get("threads") or 1
    most = workers or max(1, int(ray.cluster_resources().get("CPU", 1)) // threads)
    numbers = ray.data.from_items(list(range(len(job.units))), override_num_blocks=min(len(job.units), _TASKS))
    done = numbers.map_batches(
        Worker,
        fn_constructor_args=(job,),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
        num_cpus=threads,
    )
    try:
        for row in done.iter_rows():
            failure, is_usage = row.pop("failure"), row.pop("is_usage")
            if failure:
                raise (InputError if is_usage else TriformError)(failure)
            yield Counts(**row)
    except RayError as error:
        raise TriformError(f"the cluster failed: {_first_line(error)}") from None


def _check_answers(address: str) -> None:
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        raise InputError(f"{option('cluster')} must be auto, local or HOST:PORT, not {address!r}")
    try:
        with suppress(TimeoutError), socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE):
            return
    except (OSError, OverflowError):
        pass
    raise InputError(f"{option('cluster')} {address}: nothing answers there")


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
