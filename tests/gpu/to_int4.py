"""Makes a bundle with 4-bit products of one for GPUs whose products are float16: `triform export` needs the checkpoint.

python tests/gpu/to_int4.py BUNDLE TARGET
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from pathlib import Path

import onnx_ir as ir

from triform.export.gpu.blocks import BLOCK_SIZE, symmetric_blocks
from triform.export.graph.nodes import MICROSOFT, add_initializer, insert, nodes, replace, sweep
from triform.export.graph.weights import matrix
from triform.export.write import write_graph
from triform.runtime.bundle.folder import open_bundle
from triform.runtime.bundle.manifest import MANIFEST, FileInfo


def main(source: Path, target: Path) -> None:
    """Write the bundle."""
    manifest = open_bundle(source).manifest
    target.mkdir(parents=True)
    for name in manifest.files:
        if not name.startswith("decoder."):
            shutil.copyfile(source / name, target / name)
    model = ir.load(source / "decoder.onnx")
    for node in nodes(model.graph, "FusedMatMul"):
        x, weight = node.inputs
        rows = matrix(weight).float()
        blocks = symmetric_blocks(rows, None)
        stored = [
            add_initializer(model.graph, f"{weight.name}.blocks", blocks.packed),
            add_initializer(model.graph, f"{weight.name}.scales", blocks.scales.astype("float16")),
        ]
        attributes = {"K": rows.shape[1], "N": rows.shape[0], "bits": 4, "block_size": BLOCK_SIZE}
        product = insert(model.graph, node, "MatMulNBits", [x, *stored], domain=MICROSOFT, attributes=attributes)
        replace(node.outputs[0], product.outputs[0])
    sweep(model)
    write_graph(model, target / "decoder.onnx")
    files = dict(manifest.files)
    for name in ("decoder.onnx", "decoder.onnx.data"):
        files[name] = FileInfo((target / name).stat().st_size, "0" * 64)
    (target / MANIFEST).write_text(dataclasses.replace(manifest, files=files).to_json(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
