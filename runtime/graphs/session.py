"""Opens ONNX Runtime sessions: sets threads, starts providers, and reports failures in one line."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, TypedDict

from triform.runtime.errors import (
    BundleError,
    InputError,
    OutOfMemoryError,
    ProviderError,
    ProviderWarning,
    TriformError,
    is_out_of_memory,
    option,
    pass_on,
)
from triform.runtime.graphs.exact_products import make_products_exact
from triform.runtime.graphs.packed_weights import add_unpacked, unpacked_weights
from triform.runtime.graphs.protocols import GraphSession
from triform.runtime.graphs.providers.assignment import Assignment, assignment, fallback_note
from triform.runtime.graphs.providers.choice import GPU_PROVIDERS, absent_providers, choose, options_of, preload
from triform.runtime.graphs.providers.failures import first_line, is_of_gpu, known_cause, missing_library, unknown_part
from triform.runtime.graphs.providers.names import CPU, short_name
from triform.runtime.graphs.providers.plugins import installed_plugins, plugin_of, use_plugin
from triform.runtime.machine.memory import give_back_memory
from triform.runtime.machine.prepared_graphs import prepared_graph
from triform.runtime.machine.processor import physical_cores

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
        provider: a name that ONNX Runtime knows, with or without "ExecutionProvider" (cpu, cuda, …), or the name of a
            provider that an installed package brings (webgpu, openvino, …). ``auto``, the default, is the CPU here;
            whoever opens a bundle names a GPU's provider if the bundle has graphs for GPUs.
        provider_options: passed to the provider unchanged, but for ``device_type`` of a provider that a package
            brings: cpu, gpu or npu, where it has several devices.
        threads: threads within one operator; the physical cores that this process may use when None.
    """

    provider: str
    provider_options: Mapping[str, str] | None
    threads: int | None


# ONNX Runtime's optimizations that make graphs slower on a CPU. It joins an addition and a LayerNormalization, which
# takes two to five times as long as the two apart: at a width of 768, 5.8 against 1.0 ms for 1,024 rows and 7.3
# against 3.5 us for one.
SLOW_FUSIONS = frozenset({"SkipLayerNormFusion"})


def open_session(
    path: Path,
    *,
    provider: str = "auto",
    provider_options: Mapping[str, str] | None = None,
    threads: int | None = None,
    cuda_graph: bool = False,
) -> GraphSession:
    """Open a graph.

    Warns in one line (`ProviderWarning`) if the provider leaves operators to the CPU.

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
    if threads is not None and not (type(threads) is int and 1 <= threads <= _MOST_THREADS):
        raise InputError(f"{option('threads')} must be between 1 and {_MOST_THREADS}, not {threads!r:.60}")
    # On the processors measured, the attention kernel's non-flash path is up to twice as fast on prompts as its flash
    # path. It needs a matrix of scores, which feeding prompts in chunks keeps small. Read when the session is created.
    os.environ.setdefault("ORT_GQA_DISABLE_FLASH_ATTENTION", "1")
    import onnxruntime as ort

    chosen = choose(ort, provider)
    if chosen == CPU:
        if provider_options:
            # onnxruntime would ignore them silently.
            raise InputError(
                f"{option('provider_options')} {next(iter(provider_options))}: the cpu provider takes no options; "
                f"name another with {option('provider')}"
            )
        return _open_on_cpu(ort, path, threads)
    session = _open_on(ort, chosen, path, threads, options_of(chosen, provider_options, cuda_graph), provider_options)
    note = fallback_note(assignment(session, chosen), chosen, str(path))
    if note:
        warnings.warn(note, ProviderWarning, stacklevel=2)
    return session


def provider_assignment(path: Path, provider: str, provider_options: Mapping[str, str] | None = None) -> Assignment:
    """Where the operators of a graph run with a provider other than the CPU.

    Raises:
        InputError: the provider is the CPU.
        ProviderError: see `open_session`.
        BundleError: see `open_session`.
        OutOfMemoryError: see `open_session`.
    """
    import onnxruntime as ort

    chosen = choose(ort, provider)
    if chosen == CPU:
        raise InputError(f"{option('provider')} {provider}: the cpu runs all of a graph; name another provider")
    options = options_of(chosen, provider_options, False)
    return assignment(_open_on(ort, chosen, path, None, options, provider_options), chosen)


def provider_problems() -> dict[str, str | None]:
    """By short name (cpu, cuda, …), why each provider does not start, or None if it does.

    They are those of this onnxruntime, those that installed packages bring, and those that a package could bring.
    """
    import onnxruntime as ort

    plugins = (plugin.provider for plugin in installed_plugins())
    # Each once: a registered plugin is among those of onnxruntime.
    return _problems(dict.fromkeys([*ort.get_available_providers(), *plugins])) | absent_providers(ort)


@cache
def gpu_provider() -> str | None:
    """The first provider here that starts and that bundles made for GPUs run on, as onnxruntime spells it, or None."""
    import onnxruntime as ort

    available = ort.get_available_providers()
    listed = (name for name in GPU_PROVIDERS if name in available)
    return next((name for name in listed if _problems([name])[short_name(name)] is None), None)


def _problems(providers: Iterable[str]) -> dict[str, str | None]:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # That a provider leaves this graph to the CPU says nothing.
        warnings.simplefilter("ignore")
        path = Path(folder) / "identity.onnx"
        path.write_bytes(_IDENTITY)
        return {name: _problem(path, name) for name in map(short_name, providers)}


def _problem(path: Path, provider: str) -> str | None:
    try:
        open_session(path, provider=provider, threads=1)
    except TriformError as error:
        return str(error)
    return None


def _settings(ort: Any, threads: int | None) -> Any:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads or physical_cores()
    settings.log_severity_level = 4
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    make_products_exact(settings)
    return settings


def _open_on(
    ort: Any,
    provider: str,
    path: Path,
    threads: int | None,
    options: Mapping[str, str],
    given: Mapping[str, str] | None,
) -> GraphSession:
    """Open a graph with a provider other than the CPU, which runs what the provider leaves.

    Args:
        ort: onnxruntime.
        provider: its name, as onnxruntime spells it.
        path: the graph.
        threads: see `SessionOptions`.
        options: all options for the provider.
        given: those of them that the user gave.
    """
    preload(ort, provider)
    name = short_name(provider)
    if missing := missing_library(ort, provider):
        raise ProviderError(f"provider {name} could not start: {missing}")
    settings = _settings(ort, threads)
    settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if plugin := plugin_of(ort, provider):
        use_plugin(ort, settings, plugin, options)
    try:
        # A plugin is among the settings.
        session = _create(ort, path, settings, None if plugin else [(provider, dict(options)), CPU])
    except Exception as error:  # onnxruntime's exceptions share no base class
        pass_on(error)
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"{path} does not fit into the memory that provider {name} has; free some, export it smaller, or use "
                f"{option('provider')} cpu"
            ) from error
        known = known_cause(error)
        if known is None:
            # Is it the graph, or the provider? The graph is at fault if the CPU cannot open it either.
            _open_on_cpu(ort, path, threads)
        shown = "".join(f" {key}={value}" for key, value in (given or {}).items())
        with_options = f" with {option('provider_options')}{shown}" if shown else ""
        raise ProviderError(f"provider {name} could not start{with_options}: {known or first_line(error)}") from error
    if provider not in session.get_providers():
        raise ProviderError(f"provider {name} could not start; see onnxruntime's requirements for it")
    return session


def write_prepared(path: Path, folder: Path) -> None:
    """Write the copy of a graph that loads fastest on this machine: optimized, its weights laid out for the processor.

    Args:
        path: the .onnx file in a bundle.
        folder: the copy is written into it, under the same name.

    Raises:
        TriformError: it cannot be written; the graph itself must have been opened before.
        OutOfMemoryError: the graph and its copy do not fit into memory.
    """
    import onnxruntime as ort

    settings = _settings(ort, None)
    settings.optimized_model_filepath = str(folder / path.name)
    for key, value in (
        ("session.save_external_prepacked_constant_initializers", "1"),
        ("session.optimized_model_external_initializers_file_name", f"{path.name}.data"),
        ("session.optimized_model_external_initializers_min_size_in_bytes", "1024"),
    ):
        settings.add_session_config_entry(key, value)
    try:
        _open_as_it_is(ort, path, settings)
    except BundleError as error:
        raise TriformError(
            f"a copy of {path} cannot be written into {folder.parent}; it needs up to five times the bundle's space"
        ) from error


def _open_on_cpu(ort: Any, path: Path, threads: int | None) -> GraphSession:
    prepared = prepared_graph(path, ort.__version__)
    if prepared is not None:
        try:
            return _create(ort, prepared, _settings(ort, threads), [CPU], SLOW_FUSIONS)
        except Exception as error:  # onnxruntime's exceptions share no base class
            # The graph itself shows what is wrong, if it is not the copy.
            pass_on(error)
    return _open_as_it_is(ort, path, _settings(ort, threads))


def _open_as_it_is(ort: Any, path: Path, settings: Any) -> GraphSession:
    try:
        return _create(ort, path, settings, [CPU], SLOW_FUSIONS)
    except BundleError:
        raise
    except Exception as error:  # onnxruntime's exceptions share no base class
        pass_on(error)
        if is_out_of_memory(error):
            raise OutOfMemoryError(f"{path} does not fit into memory; export it smaller, or free some") from error
        if unknown := unknown_part(error):
            raise BundleError(
                f"{path} needs {unknown}, which onnxruntime {ort.__version__} does not have; install a newer one if "
                "you trust the bundle"
            ) from error
        raise BundleError(
            f"{path} cannot be opened: run `triform verify {path.parent}`, or export it again ({first_line(error)})"
        ) from error


def _create(
    ort: Any, path: Path, settings: Any, providers: list[Any] | None, without: Iterable[str] = ()
) -> GraphSession:
    weights = unpacked_weights(path)
    add_unpacked(ort, settings, weights)
    # What a tokenizer took while its file was read, which can be more than the model takes.
    give_back_memory()
    with warnings.catch_warnings():
        # onnxruntime only warns of an absent provider; `open_session` raises an error.
        warnings.simplefilter("ignore")
        # Otherwise a provider that fails is replaced by the CPU, with four lines on standard output.
        session: GraphSession = ort.InferenceSession(
            str(path), settings, providers=providers, enable_fallback=0, disabled_optimizers=set(without)
        )
    # The session has copies of them.
    weights.clear()
    give_back_memory()
    return session


def run_failure(graph: str, error: Exception) -> TriformError:
    """Return the error to raise when onnxruntime fails while running `graph`; see `pass_on`."""
    pass_on(error)
    if is_out_of_memory(error):
        memory = "the GPU's memory" if is_of_gpu(error) else "memory"
        return OutOfMemoryError(
            f"running the {graph} does not fit into {memory}; give a shorter input, or fewer at a time"
        )
    if known := known_cause(error):
        return ProviderError(f"onnxruntime could not run the {graph}: {known}")
    return TriformError(f"onnxruntime could not run the {graph}: {first_line(error)}; try `triform verify`")
