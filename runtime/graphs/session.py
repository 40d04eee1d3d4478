"""Opens ONNX Runtime sessions: chooses providers and threads, and reports failures in one line."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from triform.runtime.errors import (
    BundleError,
    InputError,
    OutOfMemoryError,
    ProviderError,
    TriformError,
    is_out_of_memory,
    option,
)
from triform.runtime.graphs.protocols import GraphSession
from triform.runtime.machine.processor import physical_cores

_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# Those that bundles made for GPUs run on, the first choice first.
_GPU = (_CUDA,)
# Those that need NVIDIA's libraries, which pip packages install where the system does not look for them.
_NEED_NVIDIA = (_CUDA, "TensorrtExecutionProvider")
# Without a user's own options. By default the arena doubles whenever it grows, so that it takes up to twice the memory
# that a model needs.
_DEFAULT_OPTIONS: Mapping[str, Mapping[str, str]] = {_CUDA: {"arena_extend_strategy": "kSameAsRequested"}}
# onnxruntime starts as many threads as requested; ten thousand never finish starting.
_MOST_THREADS = 1024
# A graph of one operator, y = Identity(x) of one float, in ONNX's protobuf format: the device has no package that
# writes one.
_IDENTITY = bytes.fromhex(
    "0808"  # ir_version 8
    "4202100d"  # opset 13
    "3a37"  # the graph
    "0a100a01781201792208" + b"Identity".hex() + "120167"  # its node, and its name g
    "5a0f0a0178120a0a08080112040a020801"  # the input x: float32 [1]
    "620f0a0179120a0a08080112040a020801"  # the output y
)


class SessionOptions(TypedDict, total=False):
    """How graphs are opened.

    Attributes:
        provider: a name that ONNX Runtime knows, with or without "ExecutionProvider" (cpu, cuda, …). ``auto``, the
            default, is the CPU: bundles are made for it, and a GPU runs their operators in part only.
        provider_options: passed to the provider unchanged.
        threads: threads within one operator; the physical cores that this process may use when None.
    """

    provider: str
    provider_options: Mapping[str, str] | None
    threads: int | None


def open_session(
    path: Path,
    *,
    provider: str = "auto",
    provider_options: Mapping[str, str] | None = None,
    threads: int | None = None,
    cuda_graph: bool = False,
) -> GraphSession:
    """Open a graph.

    Warns in one line if the provider leaves operators to the CPU.

    Args:
        path: the .onnx file; its data file beside it is memory-mapped.
        provider: see `SessionOptions`.
        provider_options: see `SessionOptions`.
        threads: see `SessionOptions`.
        cuda_graph: record runs on the same buffers as CUDA graphs, which start in one call; only for the CUDA
            provider, others ignore it.

    Raises:
        ProviderError: the named provider is not in this onnxruntime, refuses its options, or cannot start.
        BundleError: the graph or its data is damaged.
        InputError: `threads` is out of range, or options are given for the CPU, which takes none.
    """
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise InputError(f"{option('threads')} must be between 1 and {_MOST_THREADS}, not {threads}")
    # On the processors measured, the attention kernel's non-flash path is up to twice as fast on prompts as its flash
    # path. It needs a matrix of scores, which feeding prompts in chunks keeps small. Read when the session is created.
    os.environ.setdefault("ORT_GQA_DISABLE_FLASH_ATTENTION", "1")
    import onnxruntime as ort

    chosen = _choose(provider, ort.get_available_providers())
    settings = _settings(ort, threads)
    if chosen == _CPU:
        if provider_options:
            # onnxruntime would ignore them silently.
            raise InputError(
                f"{option('provider_options')} {next(iter(provider_options))}: the cpu provider takes no options; "
                f"name another with {option('provider')}"
            )
        return _open_on_cpu(ort, path, settings)
    _preload(ort, chosen)
    options = _options(chosen, provider_options, cuda_graph)
    try:
        session: GraphSession = _create(ort, path, settings, [(chosen, options), _CPU])
    except Exception as error:  # onnxruntime's exceptions share no base class
        # Is it the graph, or the provider? The graph is at fault if the CPU cannot open it either.
        _open_on_cpu(ort, path, settings)
        shown = "".join(f" {name}={value}" for name, value in (provider_options or {}).items())
        given = f" with {option('provider_options')}{shown}" if shown else ""
        raise ProviderError(f"provider {provider} could not start{given}: {_first_line(error)}") from error
    if chosen not in session.get_providers():
        raise ProviderError(f"provider {provider} could not start; see onnxruntime's requirements for it")
    _warn_of_fallback(session, path, chosen)
    return session


def provider_problems() -> dict[str, str | None]:
    """The providers of this onnxruntime by short name (cpu, cuda, …); why each does not start, or None if it does."""
    import onnxruntime as ort

    return _problems(ort.get_available_providers())


@cache
def gpu_provider() -> str | None:
    """The first provider here that starts and that bundles made for GPUs run on, as onnxruntime spells it, or None."""
    import onnxruntime as ort

    available = ort.get_available_providers()
    listed = (name for name in _GPU if name in available)
    return next((name for name in listed if _problems([name])[_short(name)] is None), None)


def _problems(providers: Sequence[str]) -> dict[str, str | None]:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # That a provider leaves this graph to the CPU says nothing.
        warnings.simplefilter("ignore")
        path = Path(folder) / "identity.onnx"
        path.write_bytes(_IDENTITY)
        return {name: _problem(path, name) for name in map(_short, providers)}


def _problem(path: Path, provider: str) -> str | None:
    try:
        open_session(path, provider=provider, threads=1)
    except TriformError as error:
        return str(error)
    return None


def _choose(provider: str, available: list[str]) -> str:
    requested = provider.lower().removesuffix("executionprovider")
    if requested == "auto":
        return _CPU
    for name in available:
        if name.lower().removesuffix("executionprovider") == requested:
            return name
    names = ", ".join(map(_short, available))
    raise ProviderError(f"provider {provider} is not available in this onnxruntime; available: {names}")


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider").lower()


def _settings(ort: Any, threads: int | None) -> Any:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads or physical_cores()
    settings.log_severity_level = 4
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # Without VNNI, x86 processors add products of 8-bit numbers in 16 bits, where sums saturate. With this entry
    # onnxruntime uses an exact product there, which is about 10 % slower; elsewhere nothing changes. It needs the
    # extended optimizations.
    settings.add_session_config_entry("session.x64quantprecision", "1")
    return settings


def _preload(ort: Any, provider: str) -> None:
    """Load NVIDIA's libraries from their pip packages, if the provider needs them."""
    # Builds of other vendors may lack the function.
    if provider in _NEED_NVIDIA and hasattr(ort, "preload_dlls"):
        # It prints which libraries are absent; what stops the provider is said when the session opens.
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def _options(provider: str, given: Mapping[str, str] | None, cuda_graph: bool) -> dict[str, str]:
    """The options for a provider: a user's own take precedence."""
    captured = {"enable_cuda_graph": "1"} if cuda_graph and provider == _CUDA else {}
    return {**_DEFAULT_OPTIONS.get(provider, {}), **captured, **(given or {})}


def _create(ort: Any, path: Path, settings: Any, providers: list[Any]) -> Any:
    if providers != [_CPU]:
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    with warnings.catch_warnings():
        # onnxruntime only warns of an absent provider; `open_session` raises an error.
        warnings.simplefilter("ignore")
        # Otherwise a provider that fails is replaced by the CPU, with four lines on standard output.
        return ort.InferenceSession(str(path), settings, providers=providers, enable_fallback=0)


def _open_on_cpu(ort: Any, path: Path, settings: Any) -> GraphSession:
    try:
        session: GraphSession = _create(ort, path, settings, [_CPU])
    except Exception as error:  # onnxruntime's exceptions share no base class
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"{path} does not fit into memory; export it smaller, or free some") from error
        raise BundleError(
            f"{path} cannot be opened: run `triform verify {path.parent}`, or export it again ({_first_line(error)})"
        ) from error
    return session


def _warn_of_fallback(session: Any, path: Path, provider: str) -> None:
    """Warn in one line about the operators that the provider leaves to others."""
    placed = [
        (node.op_type, subgraph.ep_name)
        for subgraph in session.get_provider_graph_assignment_info()
        for node in subgraph.get_nodes()
    ]
    left = Counter(operator for operator, name in placed if name != provider)
    if left:
        listed = ", ".join(f"{count} {operator}" for operator, count in left.most_common())
        count = f"{left.total()} of {len(placed)} operators"
        warnings.warn(f"provider {_short(provider)} leaves {count} of {path} to the cpu: {listed}", stacklevel=3)


def run_failure(graph: str, error: Exception) -> TriformError:
    """Return the error to raise when onnxruntime fails while running `graph`."""
    if is_out_of_memory(error):
        return OutOfMemoryError(
            f"running the {graph} does not fit into memory; give a shorter input, or fewer at a time"
        )
    return TriformError(f"onnxruntime could not run the {graph}: {_first_line(error)}; try `triform verify`")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
