"""Sessions of a graph of one addition: providers, their options, threads, and what is said when something fails."""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest

from triform.runtime.errors import BundleError, InputError, OutOfMemoryError, ProviderError, TriformError
from triform.runtime.graphs.providers.assignment import Assignment
from triform.runtime.graphs.session import (
    SLOW_FUSIONS,
    gpu_provider,
    open_session,
    provider_assignment,
    run_failure,
)

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.fixture
def cuda_is_listed(monkeypatch):
    """onnxruntime-gpu lists CUDA whether or not the machine has a GPU."""
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])


@pytest.mark.parametrize("name", ["cpu", "CPU", CPU])
def test_names_of_providers(graph, name):
    session = open_session(graph, provider=name)
    assert session.get_providers() == [CPU]
    (doubled,) = session.run(None, {"x": np.array([1.5, -2], np.float32)})
    assert doubled.tolist() == [3, -4]


@pytest.mark.usefixtures("cuda_is_listed")
def test_auto_is_the_cpu_without_a_word(graph):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_session(graph).get_providers() == [CPU]


def test_an_unknown_provider_is_refused_with_those_there_are(graph):
    with pytest.raises(
        ProviderError, match=r"^provider npu is not available in this onnxruntime; available: .*\bcpu\b"
    ):
        open_session(graph, provider="npu")


@pytest.mark.usefixtures("cuda_is_listed")
def test_a_provider_that_cannot_start_is_not_replaced(graph, capfd):
    with pytest.raises(ProviderError, match=r"^provider cuda could not start; see onnxruntime's requirements for it$"):
        open_session(graph, provider="cuda")
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("cuda_is_listed")
def test_options_that_a_provider_refuses_are_named(graph, monkeypatch, capfd):
    real = onnxruntime.InferenceSession

    def refuses(path, settings, providers, **more):
        assert more == {"enable_fallback": 0, "disabled_optimizers": SLOW_FUSIONS if providers == [CPU] else set()}
        if providers != [CPU]:
            assert providers == [(CUDA, {"arena_extend_strategy": "kSameAsRequested", "speed": "high"}), CPU]
            raise RuntimeError("Unknown provider option: speed\nand a trace")
        return real(path, settings, providers=providers, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuses)
    said = "^provider cuda could not start with `provider_options` speed=high: Unknown provider option: speed$"
    with pytest.raises(ProviderError, match=said):
        open_session(graph, provider="cuda", provider_options={"speed": "high"})
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def requests(monkeypatch):
    """What sessions are opened with and which libraries are loaded for them, in order; CUDA starts, as a name only."""
    real, seen = onnxruntime.InferenceSession, []

    def opens(path, settings, providers, **more):
        seen.append(providers)
        session = real(path, settings, providers=[CPU], **more)
        session.get_providers = lambda: [name if isinstance(name, str) else name[0] for name in providers]
        return session

    def preload():
        print("Failed to load libcudnn.so.9")
        seen.append("libraries")

    monkeypatch.setattr(onnxruntime, "InferenceSession", opens)
    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    gpu_provider.cache_clear()
    yield seen
    gpu_provider.cache_clear()


@pytest.mark.usefixtures("cuda_is_listed")
@pytest.mark.filterwarnings("ignore:provider cuda leaves")
def test_cuda_gets_its_libraries_first_and_no_more_memory_than_it_needs(graph, requests, capfd):
    open_session(graph, provider="cuda")
    assert requests == ["libraries", [(CUDA, {"arena_extend_strategy": "kSameAsRequested"}), CPU]]
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("cuda_is_listed")
@pytest.mark.filterwarnings("ignore:provider cuda leaves")
def test_options_of_a_user_come_before_the_defaults(graph, requests):
    theirs = {"arena_extend_strategy": "kNextPowerOfTwo"}
    open_session(graph, provider="cuda", provider_options=theirs)
    assert requests[-1] == [(CUDA, theirs), CPU]


@pytest.mark.usefixtures("cuda_is_listed")
@pytest.mark.filterwarnings("ignore:provider cuda leaves")
def test_cuda_graphs_are_for_cuda_only(graph, requests):
    open_session(graph, provider="cuda", cuda_graph=True)
    ((_, options), _) = requests[-1]
    assert options == {"arena_extend_strategy": "kSameAsRequested", "enable_cuda_graph": "1"}
    requests.clear()
    open_session(graph, provider="cpu", cuda_graph=True)
    assert requests == [[CPU]]


@pytest.mark.usefixtures("cuda_is_listed", "requests")
def test_a_gpu_that_starts_is_used_for_bundles_made_for_it():
    assert gpu_provider() == CUDA


@pytest.mark.usefixtures("cuda_is_listed")
def test_a_gpu_that_does_not_start_is_not_used():
    """onnxruntime for the CPU has no CUDA, whatever is listed here."""
    gpu_provider.cache_clear()
    assert gpu_provider() is None


def test_onnxruntime_for_the_cpu_has_no_gpu():
    gpu_provider.cache_clear()
    assert gpu_provider() is None


@pytest.mark.parametrize("provider", ["auto", "cpu"])
def test_options_for_the_cpu_are_refused(graph, provider):
    with pytest.raises(InputError, match=r"^`provider_options` speed: the cpu provider takes no options; name another"):
        open_session(graph, provider=provider, provider_options={"speed": "high"})


def test_where_operators_run(graph):
    assert provider_assignment(graph, "azure") == Assignment(1, Counter(Add=1))
    for name in ("cpu", "auto"):
        with pytest.raises(
            InputError, match=rf"^`provider` {name}: the cpu runs all of a graph; name another provider$"
        ):
            provider_assignment(graph, name)


def test_what_a_provider_leaves_to_the_cpu_is_said_in_one_line(graph):
    """Azure's provider is in every package of onnxruntime, and runs no ordinary operator."""
    with pytest.warns(UserWarning) as caught:
        session = open_session(graph, provider="azure")
    (warning,) = caught
    assert str(warning.message) == f"provider azure leaves 1 of 1 operators of {graph} to the cpu: 1 Add"
    assert session.get_providers()[0] == "AzureExecutionProvider"


@pytest.mark.parametrize("provider", ["cpu", "azure"])
def test_a_damaged_graph_is_named_whatever_the_provider(graph, provider):
    graph.write_bytes(graph.read_bytes()[:40])
    with pytest.raises(BundleError, match=r"double\.onnx cannot be opened: run `triform verify "):
        open_session(graph, provider=provider)


@pytest.mark.usefixtures("cuda_is_listed")
def test_a_graph_that_a_gpu_has_no_memory_for_is_named(graph, monkeypatch):
    def full(*_, **__):
        raise RuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc((void**)&p, size);")

    monkeypatch.setattr(onnxruntime, "InferenceSession", full)
    with pytest.raises(OutOfMemoryError) as caught:
        open_session(graph, provider="cuda")
    assert str(caught.value) == (
        f"{graph} does not fit into the memory that provider cuda has; free some, export it smaller, or use "
        "`provider` cpu"
    )


def test_an_absent_driver_is_said(graph, monkeypatch):
    def without_driver(path, settings, providers, **_):
        assert providers != [CPU], "a large graph would be read for nothing: the graph is not at fault"
        raise RuntimeError("CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version ; GPU=-1")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "InferenceSession", without_driver)
    said = "^provider cuda could not start: the NVIDIA driver is missing or too old for this onnxruntime; update it$"
    with pytest.raises(ProviderError, match=said):
        open_session(graph, provider="cuda")


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        (
            "bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 9",
            OutOfMemoryError,
            "running the decoder does not fit into memory; give a shorter input, or fewer at a time",
        ),
        (
            "CUDA failure 2: out of memory ; GPU=0",
            OutOfMemoryError,
            "running the decoder does not fit into the GPU's memory; give a shorter input, or fewer at a time",
        ),
        (
            "CUDA failure 209: no kernel image is available for execution on the device ; GPU=0",
            ProviderError,
            "onnxruntime could not run the decoder: this onnxruntime has no code for a GPU of this generation",
        ),
        (
            "Invalid input\nand a trace",
            TriformError,
            "onnxruntime could not run the decoder: Invalid input; try `triform verify`",
        ),
    ],
)
def test_a_run_that_fails_says_what_to_do(text, kind, said):
    failure = run_failure("decoder", RuntimeError(text))
    assert (type(failure), str(failure)) == (kind, said)


def test_threads(graph):
    assert open_session(graph, threads=3).get_session_options().intra_op_num_threads == 3
    for threads in (0, -1, 1025, 2.0, "2", True):
        with pytest.raises(InputError, match=f"^`threads` must be between 1 and 1024, not {threads!r}$"):
            open_session(graph, threads=threads)


@pytest.mark.parametrize(("without", "norms"), [((), "SkipLayerNormalization"), (SLOW_FUSIONS, "LayerNormalization")])
def test_the_names_of_slow_fusions_are_those_of_this_onnxruntime(tmp_path, without, norms):
    sizes = ["batch", "sequence", 8]
    nodes = [
        onnx.helper.make_node("Add", ["x", "y"], ["sum"]),
        onnx.helper.make_node("LayerNormalization", ["sum", "ones"], ["z"]),
    ]
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes) for name in "xy"]
    outputs = [onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, sizes)]
    ones = onnx.numpy_helper.from_array(np.ones(8, np.float32), "ones")
    graph = onnx.helper.make_graph(nodes, "norm", inputs, outputs, [ones])
    model = onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 21)])
    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), settings, [CPU], disabled_optimizers=without)
    assert norms in {node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node}
