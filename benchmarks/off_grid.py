"""Makes a float16 GGUF file of a quantized one that computes the same, with weights on no grid.

    python -m benchmarks.off_grid MODEL.Q4_1.gguf MODEL.float.gguf

The numbers of a quantized file lie on the few levels of its blocks. Whoever rounds to the same blocks again loses
nothing, which says nothing of how well float weights are rounded. Here each channel is multiplied by a random factor
near 1 where it is written, and divided by it where it is read: between a norm and the products behind it, between the
values of attention and its output, and between both products of the gated MLP. Token embeddings stay as they are. For
files of the architecture llama, whose MLP is linear in `ffn_up`. Needs the package gguf.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

import gguf
import numpy as np
from numpy.typing import NDArray

_SPREAD = 0.1

_Tensors = dict[str, NDArray[np.float32]]


def main() -> None:
    """Read the first file, write the second."""
    source, target = sys.argv[1:]
    reader = gguf.GGUFReader(source)
    tensors = {item.name: np.array(gguf.dequantize(item.data, item.tensor_type)) for item in reader.tensors}
    heads = int(reader.fields["llama.attention.head_count_kv"].contents())
    scale_channels(tensors, heads, np.random.default_rng(0))
    _write(reader, tensors, target)


def scale_channels(tensors: _Tensors, heads: int, draw: np.random.Generator) -> None:
    """Multiply channels in place, so that the model computes the same.

    Args:
        tensors: by name of GGUF, float32; matrices (outputs, inputs).
        heads: of keys and values.
        draw: for the factors.
    """

    def factors(count: int) -> NDArray[np.float32]:
        return np.exp(draw.normal(0, _SPREAD, count)).astype(np.float32)

    for layer in sorted({match[0] for name in tensors if (match := re.match(r"blk\.\d+\.", name))}):
        _scale_layer(tensors, layer, heads, factors)


def _scale_layer(tensors: _Tensors, layer: str, heads: int, factors: Callable[[int], NDArray[np.float32]]) -> None:
    def weight(name: str) -> NDArray[np.float32]:
        return tensors[f"{layer}{name}.weight"]

    for norm, readers in (("attn_norm", ("attn_q", "attn_k", "attn_v")), ("ffn_norm", ("ffn_gate", "ffn_up"))):
        factor = factors(len(weight(norm)))
        weight(norm)[:] /= factor
        for name in readers:
            weight(name)[:] *= factor
    factor = factors(len(weight("ffn_up")))
    weight("ffn_up")[:] *= factor[:, None]
    weight("ffn_down")[:] /= factor
    values, output = weight("attn_v"), weight("attn_output")
    factor = factors(len(values))
    values[:] *= factor[:, None]
    # The heads of queries that share a head of values stand side by side.
    output[:] /= np.repeat(factor.reshape(heads, -1), output.shape[1] // len(values), axis=0).ravel()


def _write(reader: gguf.GGUFReader, tensors: _Tensors, target: str) -> None:
    writer = gguf.GGUFWriter(target, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in (
            gguf.Keys.General.ARCHITECTURE,
            gguf.Keys.General.FILE_TYPE,
        ):
            continue
        kind = field.types[0]
        items = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=items)
    for name, values in tensors.items():
        # Norms are float32 in all files of llama.cpp.
        writer.add_tensor(name, values.astype(np.float16) if values.ndim > 1 else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
