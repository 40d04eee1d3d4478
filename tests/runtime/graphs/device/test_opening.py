"""How graphs are opened on a device, with a stand-in for what opens them; and a small one on the CPU."""

from __future__ import annotations

from types import SimpleNamespace

import onnxruntime
import pytest

from tests.helpers.summing_graph import summing_graph
from triform.runtime.errors import ProviderError
from triform.runtime.graphs.device import opening
from triform.runtime.graphs.device.opening import is_recordable, open_decoder, open_like


@pytest.fixture
def opened(monkeypatch):
    """What was asked for; whether graphs can be recorded is an attribute of it."""

    class Opened(list):
        records = True

    calls = Opened()

    def open_session(path, **options):
        calls.append((path, options))
        if options.get("cuda_graph") and not calls.records:
            raise ProviderError("a part runs on the CPU")
        return f"session {len(calls)}"

    monkeypatch.setattr(opening, "open_session", open_session)
    return calls


def test_a_graph_for_the_cpu_is_never_recorded(opened):
    assert open_decoder("graph", "cpu", threads=3) == "session 1"
    assert opened == [("graph", {"threads": 3})]


def test_a_graph_for_gpus_is_recorded_where_that_can_be(opened):
    assert open_decoder("graph", "gpu", threads=3) == "session 1"
    assert opened == [("graph", {"cuda_graph": True, "threads": 3})]
    opened.clear()
    opened.records = False
    assert open_decoder("graph", "gpu", threads=3) == "session 2"
    assert opened == [("graph", {"cuda_graph": True, "threads": 3}), ("graph", {"threads": 3})]


@pytest.mark.parametrize(
    ("options", "recordable"),
    [
        ({"CUDAExecutionProvider": {"enable_cuda_graph": "1"}}, True),
        ({"CUDAExecutionProvider": {"enable_cuda_graph": 1}}, True),
        ({"CUDAExecutionProvider": {"enable_cuda_graph": "0"}}, False),
        ({"CUDAExecutionProvider": {}}, False),
        ({"CPUExecutionProvider": {"enable_cuda_graph": "1"}}, False),
        ({}, False),
    ],
)
def test_whether_runs_can_be_recorded(options, recordable):
    assert is_recordable(SimpleNamespace(get_provider_options=lambda: options)) is recordable


def test_a_session_that_says_nothing_is_not_recorded():
    assert not is_recordable(SimpleNamespace())


def test_a_graph_in_memory_runs_where_another_does():
    graph = summing_graph().SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    asked = SimpleNamespace(get_providers=lambda: ["CPUExecutionProvider"])
    like = open_like(asked, graph)
    assert like.get_providers() == ["CPUExecutionProvider"]
    assert [one.name for one in like.get_inputs()] == [one.name for one in session.get_inputs()]
