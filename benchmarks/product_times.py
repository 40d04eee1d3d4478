"""Times products with blocks of each kind, beside 4 bits in blocks of 64: what `export/quantize/mixed/times.py` holds.

    python -m benchmarks.product_times [--threads 2]

Each product stands in its graph so often, with other weights, that all of them fit into no cache: as in a model. One
graph is open at a time, because the threads of others would wait actively. The least of several runs counts. The table
has the median over shapes of what a product takes beside the same one with blocks of 64 in 4 bits.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

_SHAPES = ((576, 576), (1536, 576), (576, 1536), (49152, 576), (2048, 2048), (8192, 2048), (2048, 8192))
_BLOCKS = ((4, 64), (4, 32), (4, 16), (8, 128), (8, 64), (8, 32), (8, 16))
_ROWS = (1, 4, 512)
# Bytes of the weights of a graph, more than the caches hold.
_BYTES = 40_000_000
_ROUNDS, _RUNS, _RUNS_OF_MANY = 2, 12, 2
# A head computes the logits of few rows only.
_WIDEST_FOR_MANY = 10_000


def main() -> None:
    """Measure all shapes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    times = {shape: _times_of(*shape, threads) for shape in _SHAPES}
    print("bits, block", *(f"{rows} rows" for rows in _ROWS), sep="\t")
    for blocks in _BLOCKS:
        ratios = []
        for rows in _ROWS:
            known = [own for own in times.values() if (*blocks, rows) in own]
            ratios.append(statistics.median(own[*blocks, rows] / own[4, 64, rows] for own in known))
        print(blocks, *(f"{ratio:.2f}" for ratio in ratios), sep="\t")


def _times_of(columns: int, width: int, threads: int) -> dict[tuple[int, int, int], float]:
    """Seconds of one product, by bits, block size and rows."""
    best: dict[tuple[int, int, int], float] = {}
    for bits, size in _BLOCKS * _ROUNDS:
        copies = max(1, int(_BYTES / (columns * width * bits / 8)))
        session = _session(columns, width, bits, size, copies, threads)
        for rows in _ROWS:
            if rows > 4 and columns > _WIDEST_FOR_MANY:
                continue
            x = np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)
            for _ in range(_RUNS if rows <= 4 else _RUNS_OF_MANY):
                start = time.perf_counter()
                session.run(None, {"x": x})
                seconds = (time.perf_counter() - start) / copies
                best[bits, size, rows] = min(best.get((bits, size, rows), seconds), seconds)
        del session
    return best


def _session(columns: int, width: int, bits: int, size: int, copies: int, threads: int) -> ort.InferenceSession:
    draw, blocks = np.random.default_rng(0), -(-width // size)
    constants, nodes, outputs = [], [], []
    for index in range(copies):
        numbers = draw.integers(0, 256, (columns, blocks, size * bits // 8)).astype(np.uint8)
        scales = draw.random((columns, blocks)).astype(np.float32)
        zeros = draw.integers(0, 256, (columns, -(-blocks * bits // 8))).astype(np.uint8)
        names = [f"{kind}{index}" for kind in ("numbers", "scales", "zeros")]
        constants += [numpy_helper.from_array(*pair) for pair in zip((numbers, scales, zeros), names, strict=True)]
        nodes.append(
            helper.make_node(
                "MatMulNBits", ["x", *names], [f"y{index}"], domain="com.microsoft",
                K=width, N=columns, bits=bits, block_size=size, accuracy_level=4,
            )
        )  # fmt: skip
        outputs.append(helper.make_tensor_value_info(f"y{index}", TensorProto.FLOAT, ["rows", columns]))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", width])]
    graph = helper.make_graph(nodes, "products", inputs, outputs, constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    return ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
