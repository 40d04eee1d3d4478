"""Measures the GPU's memory: a large copy, counting bytes read and written, and a sum, counting bytes read.

    python benchmarks/gpu/bandwidth.py

Prints one JSON line in GB/s (10**9 bytes). No step is faster than its weights and its cache are read.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import torch

DEVICE_BYTES, HOST_BYTES = 2**31, 2**28
WARM_UP = 2


def best_seconds(run: Callable[[], object], repetitions: int) -> float:
    """The shortest of several runs on the device, the first two not counted."""
    seconds = []
    for _ in range(WARM_UP + repetitions):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        seconds.append(start.elapsed_time(end) / 1e3)
    return min(seconds[WARM_UP:])


def main() -> None:
    """Measure the copy, the sum and the way from the host, and print them."""
    source = torch.empty(DEVICE_BYTES, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    halves = source.view(torch.float16).nan_to_num_(0.5)
    host = torch.empty(HOST_BYTES, dtype=torch.uint8)
    rates = {
        "copy_gb_s": 2 * DEVICE_BYTES / best_seconds(lambda: target.copy_(source), 8),
        "read_gb_s": DEVICE_BYTES / best_seconds(lambda: halves.sum(), 8),
        "from_pageable_host_gb_s": HOST_BYTES / best_seconds(lambda: source[:HOST_BYTES].copy_(host), 3),
    }
    name = torch.cuda.get_device_name()
    print(json.dumps({"device": name} | {key: round(rate / 1e9, 1) for key, rate in rates.items()}), flush=True)


if __name__ == "__main__":
    main()
