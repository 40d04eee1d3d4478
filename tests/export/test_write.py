"""Files of graphs."""

from __future__ import annotations

from pathlib import Path

import onnx
import transformers


def test_a_graph_does_not_name_folders_of_the_exporting_machine(float_bundle):
    content = (float_bundle / "decoder.onnx").read_bytes()
    for folder in (Path(__file__).parents[2], Path(transformers.__file__).parent):
        assert str(folder).encode() not in content
    graph = onnx.load(float_bundle / "decoder.onnx", load_external_data=False).graph
    assert not any(node.metadata_props or node.doc_string for node in graph.node)
