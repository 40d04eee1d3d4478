"""ONNX Runtime sessions: providers, threads, and failures in one line."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from triform.runtime.errors import BundleError, InputError, ProviderError, TriformError, option

# Tried in this order by "auto": what a machine with that hardware would want.
_PREFERRED = ("CUDAExecutionProvider", "ROCMExecutionProvider", "CoreMLExecutionProvider", "DmlExecutionProvider")
_CPU = "CPUExecutionProvider"
# onnxruntime starts as many as it is told to; ten thousand never finish starting.
_MOST_THREADS = 1024


def open_session(
    path: Path,
    *,
    provider: str = "auto",
    provider_options: Mapping[str, str] | None = None,
    threads: int | None = None,
) -> Any:
    """Open one graph.

    Args:
        path: the .onnx file; its data file is memory-mapped from beside it.
        provider: ``auto``, or a name ONNX Runtime knows, with or without "ExecutionProvider" (cpu, cuda, …).
        provider_options: passed to the provider as they are.
        threads: threads within one operator; the physical cores this process may use when None.

    Returns:
        onnxruntime.InferenceSession.

    Raises:
        ProviderError: the named provider is not in this onnxruntime, or cannot start.
        BundleError: the graph or its data is damaged.
        InputError: `threads` is out of range, or there are options for the CPU, which takes none.
    """
    if threads is not None and not 1 <= threads <= _MOST_THREADS:
        raise InputError(f"{option('threads')} must be between 1 and {_MOST_THREADS}, not {threads}")
    # The attention kernel's non-flash path is up to twice as fast on prompts as its flash path on the processors
    # measured; it wants a matrix of scores, which feeding prompts in chunks keeps small. Read at session creation.
    os.environ.setdefault("ORT_GQA_DISABLE_FLASH_ATTENTION", "1")
    import onnxruntime as ort

    chosen = _choose(provider, ort.get_available_providers())
    if chosen == _CPU and provider_options:
        # onnxruntime would ignore them without a word.
        raise InputError(
            f"{option('provider_options')} {next(iter(provider_options))}: the cpu provider takes no options"
        )
    if chosen == _CPU or provider.lower() != "auto":
        return _create(ort, path, chosen, provider_options, threads)
    try:
        return _create(ort, path, chosen, provider_options, threads)
    except ProviderError as error:
        warnings.warn(f"{error}; using the CPU", stacklevel=2)
        return _create(ort, path, _CPU, None, threads)


def _choose(provider: str, available: list[str]) -> str:
    if provider.lower() == "auto":
        return next((name for name in _PREFERRED if name in available), _CPU)
    wanted = provider.lower().removesuffix("executionprovider")
    for name in available:
        if name.lower().removesuffix("executionprovider") == wanted:
            return name
    names = ", ".join(name.removesuffix("ExecutionProvider").lower() for name in available)
    raise ProviderError(f"provider {provider} is not available in this onnxruntime; available: {names}")


def _create(ort: Any, path: Path, provider: str, options: Mapping[str, str] | None, threads: int | None) -> Any:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads or physical_cores()
    settings.log_severity_level = 4
    # The graph was optimized at export; looking for more only costs start-up time.
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    providers: list[Any] = [(provider, dict(options or {}))]
    if provider != _CPU:
        providers.append(_CPU)
    try:
        with warnings.catch_warnings():
            # onnxruntime warns of an absent provider and goes on; we say it ourselves, below.
            warnings.simplefilter("ignore")
            session = ort.InferenceSession(str(path), settings, providers=providers)
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise _explain(path, provider, error) from error
    if provider not in session.get_providers():
        raise ProviderError(f"provider {provider} could not start; see onnxruntime's requirements for it")
    return session


def run_failure(graph: str, error: Exception) -> TriformError:
    """What to say when onnxruntime fails while running `graph`."""
    return TriformError(f"onnxruntime could not run the {graph}: {_first_line(error)}; try `triform verify`")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]


def _explain(path: Path, provider: str, error: Exception) -> Exception:
    text = _first_line(error)
    if provider != _CPU and provider in str(error):
        return ProviderError(f"provider {provider} could not start: {text}")
    return BundleError(f"{path} cannot be opened: run `triform verify {path.parent}`, or export it again ({text})")


_CPUS = Path("/sys/devices/system/cpu")


def physical_cores() -> int:
    """Physical cores among the processors this process is allowed to use.

    Two hardware threads of one core share its arithmetic units, so counting both makes matrix products slower.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if allowed is None:
        # No topology without Linux's /sys; half of the processors is right where each core has two threads.
        return max(1, (os.cpu_count() or 1) // 2)
    return max(1, len({_core_of(cpu) for cpu in allowed}))


def _core_of(cpu: int) -> str:
    try:
        return (_CPUS / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)
