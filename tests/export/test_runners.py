"""What runs graphs for an export: what they are fed, and graphs that cannot be run, refused in one line."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest
from onnxscript import FLOAT, INT64, opset21, script

from triform.export import runners
from triform.export.runners import (
    DecoderRunner,
    EncoderDecoderRunner,
    EncoderRunner,
    GpuDecoderRunner,
    greedy_tokens,
    usable_cores,
)
from triform.runtime.bundle.manifest import CacheInfo, LayerCacheInfo, StateInfo
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


class Session:
    """Keeps what it is fed; gives zeros, unless `given` has the result of a name."""

    def __init__(self, inputs, outputs, given):
        self.inputs, self.outputs, self.given, self.fed = inputs, outputs, given, []

    def get_inputs(self):
        return [SimpleNamespace(name=name, type=kind, shape=["batch"]) for name, kind in self.inputs.items()]

    def get_outputs(self):
        return [SimpleNamespace(name=name, type="tensor(float)", shape=shape) for name, shape in self.outputs.items()]

    def run(self, names, feeds):
        self.fed.append(feeds)
        return [self.given[name] if name in self.given else np.zeros(2, np.float32) for name in names]


@pytest.fixture
def opened(monkeypatch):
    def open_(kind, cache, inputs, outputs, **given):
        session = Session(inputs, outputs, given)
        monkeypatch.setattr(runners, "open_session_of", lambda path, threads: session)
        return session, kind(Path("decoder.onnx"), cache, 1)

    return open_


ATTENTION = CacheInfo("float32", [LayerCacheInfo(num_key_value_heads=2, head_dim=3)])
KEYS = ("past_key_values.0.key", "past_key_values.0.value")
CHUNK = np.array([[5, 6, 7], [8, 9, 0]])


def test_a_decoder_of_rows_of_different_lengths(opened):
    logits = np.arange(4, dtype=np.float32).reshape(2, 1, 2)
    outputs = {name: ["batch"] for name in ("logits", "present.0.key", "present.0.value", "hidden")}
    session, runner = opened(DecoderRunner, ATTENTION, dict.fromkeys(KEYS, "tensor(float)"), outputs, logits=logits)
    assert runner.extra_outputs == ["hidden"]
    assert runner.lengths.tolist() == [0]
    runner.start(2, 8)
    found, others = runner.feed(CHUNK, np.array([[2], [1]]), np.array([3, 2]))
    np.testing.assert_array_equal(found, logits)
    assert list(others) == ["hidden"]
    fed = session.fed[0]
    # No state of fixed size asks how many tokens are new.
    assert set(fed) == {"input_ids", "past_lengths", "logits_positions", *KEYS}
    assert {(fed[name].shape, fed[name].dtype) for name in KEYS} == {((2, 2, 8, 3), np.dtype(np.float32))}
    assert fed["past_lengths"].tolist() == [0, 0]
    runner.feed(CHUNK[:, :1], np.array([[0], [0]]))
    assert session.fed[1]["past_lengths"].tolist() == [3, 2]
    assert runner.lengths.tolist() == [4, 3]


def test_a_decoder_with_states_is_told_how_many_tokens_are_new(opened):
    cache = CacheInfo("float32", [], [StateInfo("recurrence", "float32", [4, 5])])
    outputs = {"logits": [], "present_states.0": []}
    session, runner = opened(DecoderRunner, cache, {"past_states.0": "tensor(float)"}, outputs)
    assert runner.extra_outputs == []
    runner.start(2, 8)
    runner.feed(CHUNK, np.array([[2], [1]]), np.array([3, 2]))
    assert session.fed[0]["new_lengths"].tolist() == [3, 2]
    assert session.fed[0]["past_states.0"].shape == (2, 4, 5)


@pytest.mark.parametrize(("kind", "dtype"), [("tensor(float16)", np.float16), ("tensor(float)", np.float32)])
def test_a_decoder_for_gpus(opened, kind, dtype):
    """`seqlens_k` is the last place of each row, by the specification of GroupQueryAttention; rows count on."""
    inputs = dict.fromkeys(("input_ids", "seqlens_k", "total_sequence_length", "logits_rows"), "tensor(int64)")
    inputs |= dict.fromkeys(KEYS, kind)
    given = {"logits": np.array([[0, 1], [3, 2]], np.float32), "next_ids": np.array([1, 0])}
    session, runner = opened(GpuDecoderRunner, ATTENTION, inputs, {}, **given)
    assert runner.lengths.tolist() == [0]
    runner.start(2, 8)
    logits, others = runner.feed(CHUNK, np.array([[2], [1]]), np.array([3, 2]))
    assert (logits.tolist(), others) == ([[[0, 1]], [[3, 2]]], {})
    runner.feed(CHUNK[:, :1], np.array([[0], [0]]))
    first, second = session.fed
    assert set(first) == set(inputs)
    assert {(first[name].shape, first[name].dtype) for name in KEYS} == {((2, 2, 8, 3), np.dtype(dtype))}
    assert (first["seqlens_k"].tolist(), second["seqlens_k"].tolist()) == ([2, 2], [3, 2])
    assert (first["total_sequence_length"].tolist(), second["total_sequence_length"].tolist()) == ([3], [4])
    assert (first["logits_rows"].tolist(), second["logits_rows"].tolist()) == ([2, 4], [0, 1])
    assert runner.lengths.tolist() == [4, 3]


@pytest.mark.parametrize(("logits", "refused"), [([[0, 1], [3, 2]], True), ([[0, np.nan], [3, 2]], False)])
def test_a_graph_for_gpus_must_choose_the_likeliest(opened, logits, refused):
    """A NaN must come through, since what is compared with it says what it is."""
    given = {"logits": np.array(logits, np.float32), "next_ids": np.array([1, 1])}
    _, runner = opened(GpuDecoderRunner, ATTENTION, dict.fromkeys(KEYS, "tensor(float)"), {}, **given)
    runner.start(2, 8)
    with pytest.raises(ExportError, match="does not choose the likeliest") if refused else nullcontext():
        runner.feed(CHUNK, np.array([[2], [1]]))


def test_outputs_with_an_axis_for_tokens_or_frames(monkeypatch):
    outputs = {
        "tokens": ["batch", "sequence", 4], "frames": ["batch", "frames"], "pooled": ["batch", 4],
        "other": ["sequence", "batch"], "later": ["batch", 4, "sequence"], "one": ["sequence"],
    }  # fmt: skip
    monkeypatch.setattr(runners, "open_session_of", lambda path, threads: Session({}, outputs, {}))
    assert EncoderRunner(Path("encoder.onnx"), 1).ragged == {"tokens", "frames"}


def test_what_is_calibrated_on_is_no_source(monkeypatch):
    outputs = {"keys": ["batch"], "activation.0": ["batch"]}
    monkeypatch.setattr(runners, "open_session_of", lambda path, threads: Session({}, outputs, {}))
    decoder = SimpleNamespace(encoder_outputs={})
    assert EncoderDecoderRunner(EncoderRunner(Path("encoder.onnx"), 1), decoder).read({}) is decoder
    assert list(decoder.encoder_outputs) == ["keys"]


def test_greedy_tokens():
    """The next is one more than the last; each is fed alone, behind those before it."""

    class Counting:
        def start(self, batch, capacity):
            self.started, self.fed = (batch, capacity), []

        def feed(self, input_ids, positions):
            self.fed.append(input_ids.tolist())
            assert positions.tolist() == [[0]]
            return np.eye(9)[input_ids[0] + 1][None], {}

    decoder = Counting()
    assert greedy_tokens(decoder, 3, 4) == [3, 4, 5, 6]
    assert (decoder.started, decoder.fed) == ((1, 4), [[[3]], [[4]], [[5]]])


@pytest.mark.parametrize(("cores", "expected"), [({0, 3}, 2), (6, 6), (1, 1), (None, 1)])
def test_cores_of_this_process(monkeypatch, cores, expected):
    """Those that the system lets it run on; where it does not tell, all that it has."""
    if isinstance(cores, set):
        monkeypatch.setattr(runners.os, "sched_getaffinity", lambda process: cores, raising=False)
    else:
        monkeypatch.delattr(runners.os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(runners.os, "cpu_count", lambda: cores)
    assert usable_cores() == expected
