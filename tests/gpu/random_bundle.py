"""Writes a bundle of a llama of any size with random weights, as `triform export --target gpu` would: for speed only.

    python tests/gpu/random_bundle.py LIKE TARGET --size 8b --weights float16|int4

LIKE is a bundle for GPUs, whose tokenizer and settings the new one takes.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from triform.runtime.bundle.folder import open_bundle
from triform.runtime.bundle.manifest import (
    MANIFEST,
    CacheInfo,
    FileInfo,
    GraphInfo,
    LayerCacheInfo,
    Quantization,
    TensorInfo,
)

MS = "com.microsoft"
HALF = TensorProto.FLOAT16
BLOCK = 32
CAPACITY = 4096


@dataclasses.dataclass(frozen=True)
class Shape:
    """Sizes of a llama, by the names of transformers."""

    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied: bool


SHAPES = {
    "tiny": Shape(2, 256, 4, 2, 64, 512, 1024, True),
    "135m": Shape(30, 576, 9, 3, 64, 1536, 49152, True),
    "1b": Shape(16, 2048, 32, 8, 64, 8192, 128256, True),
    "8b": Shape(32, 4096, 32, 8, 128, 14336, 128256, False),
}


class Writer:
    """Nodes, and weights in one file."""

    def __init__(self, target: Path, bits: int) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[TensorProto] = []
        self.bits = bits
        self.name = f"{target.name}.data"
        self.file = (target.parent / self.name).open("wb")
        rng = np.random.default_rng(0)
        # 1 to 15, mean 8: a mean other than the zero point makes activations overflow after some layers.
        low, high = rng.integers(1, 16, (2, 2**24), np.uint8)
        # Numbers are taken from one pool: making fresh ones would be most of the time.
        floats = (rng.standard_normal(2**24) * 0.02).astype(np.float16)
        self.pool = {16: floats.tobytes(), 4: (low | high << 4).tobytes()}

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Store an array; a small one in the graph itself."""
        if array.nbytes < 1024:
            self.constants.append(onnx.numpy_helper.from_array(array, name))
        else:
            self._add(name, array.shape, helper.np_dtype_to_tensor_dtype(array.dtype), [array.tobytes()])
        return name

    def random(self, name: str, shape: tuple[int, ...], bits: int) -> str:
        """Store random numbers."""
        size, pool = int(np.prod(shape)) * (1 if bits == 4 else 2), memoryview(self.pool[bits])
        chunks = [pool[: min(len(pool), size - start)] for start in range(0, size, len(pool))]
        self._add(name, shape, TensorProto.UINT8 if bits == 4 else HALF, chunks)
        return name

    def _add(self, name: str, shape: tuple[int, ...], kind: int, chunks: list[Any]) -> None:
        self.file.seek(-self.file.tell() % 4096, 1)
        offset = self.file.tell()
        for chunk in chunks:
            self.file.write(chunk)
        tensor = TensorProto(name=name, dims=shape, data_type=kind, data_location=TensorProto.EXTERNAL)
        for key, value in (("location", self.name), ("offset", offset), ("length", self.file.tell() - offset)):
            tensor.external_data.add(key=key, value=str(value))
        self.constants.append(tensor)

    def node(self, op: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any) -> str:
        """Append an operator; returns the name of its first output."""
        self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    def weight(self, name: str, n: int, k: int) -> list[str]:
        """A random matrix (n, k)."""
        if self.bits == 16:
            return [self.random(name, (n, k), 16)]
        scales = np.full((n, k // BLOCK), 0.004, np.float16)
        return [self.random(f"{name}.blocks", (n, k // BLOCK, BLOCK // 2), 4), self.constant(f"{name}.scales", scales)]

    def linear(self, x: str, weight: list[str], n: int, k: int, out: str) -> str:
        """A product."""
        if self.bits == 16:
            return self.node("FusedMatMul", [x, *weight], [out], MS, transB=1)
        return self.node("MatMulNBits", [x, *weight], [out], MS, N=n, K=k, bits=4, block_size=BLOCK)


def write_graph(target: Path, shape: Shape, bits: int) -> onnx.GraphProto:
    """Write the graph and its weights."""
    w, hidden, head, inner = Writer(target, bits), shape.hidden_size, shape.head_dim, shape.intermediate_size
    ones = w.constant("norm", np.ones(hidden, np.float16))
    angles = np.arange(CAPACITY)[:, None] * 10000.0 ** (-np.arange(0, head, 2) / head)
    rotary = [
        w.constant("cos", np.cos(angles).astype(np.float16)),
        w.constant("sin", np.sin(angles).astype(np.float16)),
    ]
    w.constant("halves", np.array([inner, inner], np.int64))
    head_weight = w.weight("lm_head", shape.vocab_size, hidden)
    shared = shape.tied and bits == 16
    table = head_weight[0] if shared else w.random("embedding", (shape.vocab_size, hidden), 16)
    x = w.node("Gather", [table, "input_ids"], ["x"])
    normed = w.node("SimplifiedLayerNormalization", [x, ones], ["n"], axis=-1, epsilon=1e-5, stash_type=1)
    for index in range(shape.num_hidden_layers):
        x, normed = _layer(w, shape, index, x, normed, ones, rotary)
    w.constant("flat", np.array([-1, 1, hidden], np.int64))
    w.node("Reshape", [normed, "flat"], ["flat_hidden"])
    rows = w.node("Gather", ["flat_hidden", "logits_rows"], ["rows"], axis=0)
    _choice(w, w.linear(rows, head_weight, shape.vocab_size, hidden, "half_logits"))
    w.file.close()
    graph = helper.make_graph(w.nodes, "llama", *_tensors(shape))
    graph.initializer.extend(w.constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), target)
    return graph


def _layer(w: Writer, shape: Shape, i: int, x: str, normed: str, ones: str, rotary: list[str]) -> tuple[str, str]:
    hidden, inner, heads, kv = (
        shape.hidden_size,
        shape.intermediate_size,
        shape.num_attention_heads,
        shape.num_key_value_heads,
    )
    packed, width = (heads + 2 * kv) * shape.head_dim, heads * shape.head_dim
    qkv = w.linear(normed, w.weight(f"{i}.qkv", packed, hidden), packed, hidden, f"{i}.qkv.y")
    past = [f"past_key_values.{i}.key", f"past_key_values.{i}.value"]
    w.node(
        "GroupQueryAttention", [qkv, "", "", *past, "seqlens_k", "total_sequence_length", *rotary],
        [f"{i}.a", f"present.{i}.key", f"present.{i}.value"], MS,
        num_heads=heads, kv_num_heads=kv, do_rotary=1, scale=shape.head_dim**-0.5,
    )  # fmt: skip
    y = w.linear(f"{i}.a", w.weight(f"{i}.o", hidden, width), hidden, width, f"{i}.o.y")
    norm = "SkipSimplifiedLayerNormalization"
    n = w.node(norm, [x, y, ones], [f"{i}.n1", "", "", f"{i}.x1"], MS, epsilon=1e-5)
    both = w.linear(n, w.weight(f"{i}.gu", 2 * inner, hidden), 2 * inner, hidden, f"{i}.gu.y")
    w.node("Split", [both, "halves"], [f"{i}.g", f"{i}.u"], axis=-1)
    m = w.node("Mul", [w.node("QuickGelu", [f"{i}.g"], [f"{i}.s"], MS, alpha=1.0), f"{i}.u"], [f"{i}.m"])
    y = w.linear(m, w.weight(f"{i}.d", hidden, inner), hidden, inner, f"{i}.d.y")
    normed = w.node(norm, [f"{i}.x1", y, ones], [f"{i}.n2", "", "", f"{i}.x2"], MS, epsilon=1e-5)
    return f"{i}.x2", normed


def _choice(w: Writer, half_logits: str) -> None:
    logits = w.node("Cast", [half_logits], ["logits"], to=TensorProto.FLOAT)
    best = w.node("ArgMax", [logits], ["best"], axis=-1, keepdims=0)
    total = w.node("ReduceSum", [logits, w.constant("axes", np.array([-1]))], ["total"], keepdims=0)
    numbers = w.node("Less", [total, w.constant("infinity", np.array(np.inf, np.float32))], ["numbers"])
    w.node("Where", [numbers, best, w.constant("none", np.array(-1))], ["next_ids"])


def _tensors(shape: Shape) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    info, names = (
        helper.make_tensor_value_info,
        [f"{i}.{part}" for i in range(shape.num_hidden_layers) for part in ("key", "value")],
    )
    cache = ["batch", shape.num_key_value_heads, "capacity", shape.head_dim]
    inputs = [
        info("input_ids", TensorProto.INT64, ["batch", "sequence"]),
        info("seqlens_k", TensorProto.INT32, ["batch"]),
        info("total_sequence_length", TensorProto.INT32, [1]),
        info("logits_rows", TensorProto.INT64, ["num_logits"]),
        *(info(f"past_key_values.{name}", HALF, cache) for name in names),
    ]
    outputs = [
        info("logits", TensorProto.FLOAT, ["num_logits", 1, shape.vocab_size]),
        info("next_ids", TensorProto.INT64, ["num_logits", 1]),
        *(info(f"present.{name}", HALF, cache) for name in names),
    ]
    return inputs, outputs


def write_bundle(like: Path, target: Path, shape: Shape, bits: int) -> None:
    """Write the graph with a manifest and the tokenizer of another bundle."""
    manifest = open_bundle(like).manifest
    target.mkdir(parents=True)
    kept = [name for name in manifest.files if not name.startswith("decoder.")]
    for name in kept:
        shutil.copyfile(like / name, target / name)
    write_graph(target / "decoder.onnx", shape, bits)
    layer = LayerCacheInfo(shape.num_key_value_heads, shape.head_dim)
    graph = GraphInfo(
        "decoder.onnx", "decoder.onnx.data", [TensorInfo("input_ids", "int64", ["batch", "sequence"])],
        [TensorInfo("logits", "float32", ["num_logits", 1, shape.vocab_size])], {"GroupQueryAttention": 1},
        Quantization("none"),
    )  # fmt: skip
    # Hashes are not made: the bundle is loaded with verify="never".
    files = {name: manifest.files[name] for name in kept}
    files |= {name: FileInfo((target / name).stat().st_size, "0" * 64) for name in (graph.file, str(graph.data))}
    made = dataclasses.replace(
        manifest, graphs={"decoder": graph}, cache=CacheInfo("float16", [layer] * shape.num_hidden_layers),
        vocab_size=shape.vocab_size, max_length=CAPACITY, files=files, model_name="random", gpu=None, target="gpu",
    )  # fmt: skip
    (target / MANIFEST).write_text(made.to_json(), encoding="utf-8")


def main() -> None:
    """Parse and call."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("like", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--size", choices=tuple(SHAPES), default="8b")
    parser.add_argument("--weights", choices=("int4", "float16"), default="float16")
    asked = parser.parse_args()
    write_bundle(asked.like, asked.target, SHAPES[asked.size], 4 if asked.weights == "int4" else 16)


if __name__ == "__main__":
    main()
