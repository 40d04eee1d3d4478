"""Opens graphs on a device: a decoder's such that its steps can be recorded, and small graphs beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Unpack

from triform.runtime.bundle.manifest import BundleTarget
from triform.runtime.errors import ProviderError
from triform.runtime.graphs.protocols import BindableSession, GraphSession
from triform.runtime.graphs.session import SessionOptions, open_session

_CUDA = "CUDAExecutionProvider"


def open_decoder(path: Path, target: BundleTarget, **options: Unpack[SessionOptions]) -> GraphSession:
    """Open a decoder's graph; one for GPUs such that steps are recorded as CUDA graphs, where the provider can.

    Args:
        path: see `open_session`.
        target: what the graph is made for.
        options: see `open_session`.

    Errors as `open_session`.
    """
    if target == "cpu":
        return open_session(path, **options)
    try:
        return open_session(path, cuda_graph=True, **options)
    except ProviderError:
        # onnxruntime refuses to record a graph of which it runs a part on the CPU.
        return open_session(path, **options)


def is_recordable(session: Any) -> bool:
    """Whether a session was opened so that runs can be recorded."""
    options = getattr(session, "get_provider_options", dict[str, Any])()
    return str(options.get(_CUDA, {}).get("enable_cuda_graph", "0")) == "1"


def open_like(session: BindableSession, graph: bytes) -> Any:
    """Open a graph in memory on the provider of another session."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    return ort.InferenceSession(graph, settings, providers=session.get_providers())  # type: ignore[attr-defined]
