"""Kills workers, machines and the driver of `triform batch` on a cluster at random moments, and compares all rows.

`python -m tests.attacks.cluster_kills ENCODER --rows 200000 --kills 20`: a cluster of several nodes on this machine
computes vectors. At random moments a worker's process or the driver is killed, or a node is taken away and another one
added. The driver is started again until it ends by itself. Then each row is compared with a run without a cluster:
none is missing, none is there twice, and the numbers are the same.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as parquet

from tests.helpers.batches import sentences
from tests.helpers.ray_cluster import add_node, start_cluster

_NODES = 2
_FILES = 4


def main() -> int:
    """Run, kill and compare; the exit code is 1 if a row differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", type=Path)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--pause", type=float, default=20, help="mean seconds between two kills")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        _write_inputs(place / "in", options.rows)
        command = [sys.executable, "-m", "triform", "batch", "embed", str(options.encoder)]
        command += ["--input", str(place / "in"), "--block-rows", "512"]
        cluster, nodes = start_cluster(_NODES)
        start = time.perf_counter()
        killed = _attack(
            [*command, "--output", str(place / "cluster"), "--cluster", cluster.address], cluster, nodes, options
        )
        print(f"cluster: {time.perf_counter() - start:.0f} s; killed {dict(killed)}", flush=True)
        cluster.shutdown()
        start = time.perf_counter()
        subprocess.run([*command, "--output", str(place / "plain"), "--threads", "1"], check=True)
        print(f"plain: {time.perf_counter() - start:.0f} s", flush=True)
        return _compare(place, options.rows)


def _write_inputs(folder: Path, rows: int) -> None:
    folder.mkdir()
    texts = sentences(rows)
    for number in range(_FILES):
        some = texts[number::_FILES]
        table = pa.table({"id": range(number, rows, _FILES), "text": some})
        parquet.write_table(table, folder / f"part-{number}.parquet", row_group_size=2048)


def _attack(command, cluster, nodes, options) -> Counter:
    chance, killed = random.Random(options.seed), Counter()
    driver = subprocess.Popen(command)
    while True:
        try:
            if driver.wait(timeout=chance.expovariate(1 / options.pause)) == 0:
                return killed
            # It was killed, or was connected by a node that was taken away.
            killed["driver started again"] += 1
            driver = subprocess.Popen(command)
        except subprocess.TimeoutExpired:
            if killed.total() - killed["driver started again"] < options.kills:
                killed[_kill(chance, driver, cluster, nodes)] += 1


def _kill(chance, driver, cluster, nodes) -> str:
    victim = chance.choice(["worker", "worker", "driver", "node"])
    # Ray's processes are this one's descendants.
    workers = [process for process in psutil.Process().children(recursive=True) if _is_worker(process)]
    if victim == "worker" and workers:
        os.kill(chance.choice(workers).pid, signal.SIGKILL)
        return "worker"
    if victim == "node":
        cluster.remove_node(nodes.pop(chance.randrange(len(nodes))), allow_graceful=False)
        nodes.append(add_node(cluster))
        return "node"
    driver.kill()
    return "driver"


def _is_worker(process: psutil.Process) -> bool:
    """Whether it is an actor that holds a model, by the name that Ray gives its process."""
    try:
        named = "ray::" in "".join(process.cmdline())
        return named and any("onnxruntime" in entry.path for entry in process.memory_maps())
    except psutil.Error:
        return False


def _compare(place: Path, rows: int) -> int:
    cluster, plain = (
        pyarrow.dataset.dataset(place / name / "rows").to_table().sort_by("id") for name in ("cluster", "plain")
    )
    ids = cluster.column("id").to_pylist()
    assert ids == list(range(rows)), f"{len(ids)} rows, {len(set(ids))} different ones"
    assert cluster.column("text").equals(plain.column("text"))
    assert cluster.column("error").null_count == rows
    vectors = [np.stack(table.column("embedding").to_numpy()) for table in (cluster, plain)]
    furthest = float(np.abs(vectors[0] - vectors[1]).max())
    print(f"{rows} rows; numbers differ by at most {furthest}")
    return 0 if furthest == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
