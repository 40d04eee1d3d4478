"""A graph that ONNX Runtime cannot run is refused in one line that names the node."""

import numpy as np
import onnx_ir as ir
import pytest
from onnxscript import FLOAT, INT64, opset21, script

from triform.export.runners import EncoderRunner
from triform.runtime.errors import ExportError


@script(default_opset=opset21)
def reshaping(values: FLOAT[...], shape: INT64[...]) -> FLOAT[...]:
    return opset21.Reshape(values, shape)


def saved(folder):
    path = folder / "encoder.onnx"
    ir.save(ir.serde.deserialize_model(reshaping.to_model_proto()), path)
    return path


def test_a_node_that_fails_is_named(tmp_path):
    runner = EncoderRunner(saved(tmp_path), 1)
    values = np.arange(6, dtype=np.float32)
    (result,) = runner.run({"values": values, "shape": np.array([2, 3])}).values()
    assert result.tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(ExportError) as error:
        runner.run({"values": values, "shape": np.array([4, 3])})
    message = str(error.value)
    assert message.startswith("ONNX Runtime cannot run the exported graph: Reshape node ")
    assert message.endswith("please report this model")
    assert "4,3" in message and "\n" not in message and "ONNXRuntimeError" not in message


def test_a_file_that_is_no_graph_is_named(tmp_path):
    (tmp_path / "encoder.onnx").write_bytes(b"\x00nothing")
    with pytest.raises(ExportError, match=r"ONNX Runtime cannot load the exported encoder\.onnx: "):
        EncoderRunner(tmp_path / "encoder.onnx", 1)
