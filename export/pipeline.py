"""Load, trace, fuse, measure, quantize, verify, write: a checkpoint becomes a bundle."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from optimum.utils import NormalizedConfigManager

from triform.export import texts, verify
from triform.export.fuse import fuse
from triform.export.gguf_reading import reading_once
from triform.export.lower import SENSITIVE_BLOCK_SIZE, Scheme, lower_to_blocks, lower_to_float
from triform.export.measure import add_energy_outputs
from triform.export.run_graph import GraphRunner
from triform.export.source import Checkpoint, find, load, read_config, save_tokenizer
from triform.export.trace import trace
from triform.export.write import check_target, describe_files, describe_graph, staged, write_graph
from triform.models import catalog
from triform.models.decoder import decoder_spec
from triform.models.errors import UnsupportedModelError
from triform.models.spec import GraphSpec
from triform.runtime import manifest as contract
from triform.runtime.errors import ExportError, InputError, UnsupportedError

Progress = Callable[[str], None]

_BITS = {"int8": 8, "int4": 4}
_DEFAULT_BLOCK_SIZE = {"int8": 128, "int4": 64}
# Tokens used for parity, for calibration, and for comparing the quantized graph.
_PARITY_TOKENS, _CALIBRATION_TOKENS, _COMPARED_TOKENS, _WINDOW = 192, 1536, 1024, 512


@dataclass(frozen=True)
class ExportOptions:
    """What a user may choose.

    Attributes:
        quantize: how to store weights: none, int8 or int4.
        block_size: weights sharing a scale, a power of two from 16 to 256; a good default for the scheme when None.
        accuracy_level: of MatMulNBits: 4 computes with 8-bit activations, 1 with float32.
        context_length: most tokens the bundle must handle; the model's own limit when None.
        force: replace a bundle that exists.
        trust_remote_code: run code that comes with the checkpoint.
        revision: of a hub id.
    """

    quantize: str = "int4"
    block_size: int | None = None
    accuracy_level: int = 4
    context_length: int | None = None
    force: bool = False
    trust_remote_code: bool = False
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.quantize not in ("none", *_BITS):
            raise InputError(f"--quantize must be none, int8 or int4, not {self.quantize}")
        if self.block_size is not None and self.block_size not in (16, 32, 64, 128, 256):
            raise InputError(f"--block-size must be 16, 32, 64, 128 or 256, not {self.block_size}")
        if self.accuracy_level not in (0, 1, 2, 3, 4):
            raise InputError(f"--accuracy-level must be 0 to 4, not {self.accuracy_level}")
        if self.context_length is not None and self.context_length < 32:
            raise InputError(f"--context-length must be at least 32, not {self.context_length}")

    @property
    def scheme(self) -> Scheme | None:
        """The quantization scheme, or None for float32."""
        if self.quantize == "none":
            return None
        return Scheme(_BITS[self.quantize], self.block_size or _DEFAULT_BLOCK_SIZE[self.quantize], self.accuracy_level)


@dataclass(frozen=True)
class Report:
    """What an export did: seconds per step, bytes of weights before and of the bundle after, parity."""

    bundle: Path
    seconds: dict[str, float]
    size_before: int
    size_after: int
    parity: contract.Parity

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {**dataclasses.asdict(self), "bundle": str(self.bundle)}


@dataclass
class _Clock:
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        self.progress(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 2)


def plan(source: str, options: ExportOptions) -> list[tuple[str, str]]:
    """What `export` would do, from the config alone: rows of (what, value).

    Raises:
        ExportError: the source cannot be read.
        UnsupportedError: the model type is not supported.
    """
    found = find(source, trust_remote_code=options.trust_remote_code, revision=options.revision)
    config = read_config(found)
    normal = _normal_config(config)
    scheme = options.scheme
    stored = "float32" if scheme is None else f"{scheme.bits} bit, blocks of {scheme.block_size}"
    if scheme is not None and scheme.block_size > SENSITIVE_BLOCK_SIZE:
        stored += f" ({SENSITIVE_BLOCK_SIZE} for attention inputs, head and embedding)"
    return [
        ("model", found.name),
        ("form", "decoder"),
        ("task", catalog.decoder_task()),
        ("model type", config.model_type),
        ("layers", str(normal.get("num_layers", "?"))),
        ("hidden size", str(normal.get("hidden_size", "?"))),
        ("vocabulary", str(normal.get("vocab_size", "?"))),
        ("context length", str(_max_length(config, options))),
        ("weights", stored),
        ("steps", "load, trace, fuse, verify against PyTorch, quantize, compare, write"),
    ]


def _normal_config(config: Any) -> dict[str, Any]:
    """Layer count and sizes under one name, whatever the architecture calls them."""
    try:
        normal = NormalizedConfigManager.get_normalized_config_class(config.model_type)(config)
    except KeyError:
        normal = config
    names = {"num_layers": "num_hidden_layers", "hidden_size": "hidden_size", "vocab_size": "vocab_size"}
    found = {}
    for name, plain in names.items():
        value = getattr(normal, name, None) or getattr(config, plain, None)
        if value is not None:
            found[name] = value
    return found


def export(source: str, bundle: Path, options: ExportOptions, progress: Progress = lambda _: None) -> Report:
    """Turn a checkpoint into a verified bundle.

    Args:
        source: a transformers folder, a GGUF file, or a hub id.
        bundle: the folder to make.
        options: see `ExportOptions`.
        progress: called with the name of each step as it starts.

    Raises:
        ExportError: the source or the target cannot be used, or the graph does not match PyTorch.
        UnsupportedError: the model type is not supported.
    """
    check_target(bundle, options.force)
    clock = _Clock(progress)
    with clock.step("load"), reading_once():
        found = find(source, trust_remote_code=options.trust_remote_code, revision=options.revision)
        config = read_config(found)
        checkpoint = load(found, config)
    max_length = _max_length(config, options)
    with staged(bundle, options.force) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        ids = texts.ids(checkpoint.tokenizer, "evaluation", _COMPARED_TOKENS, checkpoint.model)
        with clock.step("reference"):
            parity_ids = ids[: min(_PARITY_TOKENS, max_length - 8)]
            expected = verify.reference_logits(checkpoint.model, parity_ids)
        graph, spec = _graph(checkpoint, max_length, clock)
        layers = [contract.LayerCacheInfo(item.num_key_value_heads, item.head_dim) for item in spec.cache]
        with clock.step("verify"):
            original, weights = _float_graph(
                graph, Path(scratch) if options.scheme else folder, options.scheme is not None
            )
            runner = GraphRunner(original, layers, _threads())
            parity = verify.compare_with_reference(runner, expected, parity_ids)
        quantization = contract.Quantization("none")
        if options.scheme is not None:
            with clock.step("quantize"):
                importance = _importance(runner, weights, checkpoint)
                count = lower_to_blocks(graph, options.scheme, importance)
                write_graph(graph, folder / "decoder.onnx")
                quantization = _describe_scheme(options, count)
            with clock.step("compare"):
                quantized = GraphRunner(folder / "decoder.onnx", layers, _threads())
                parity = dataclasses.replace(parity, quantized=_compare(runner, quantized, ids, max_length))
        with clock.step("write"):
            template = save_tokenizer(checkpoint.tokenizer, folder)
            info = describe_graph(graph, folder / "decoder.onnx", quantization, dict(spec.notes))
            record = _manifest(checkpoint, info, layers, max_length, template, folder)
            record = dataclasses.replace(record, export=contract.ExportInfo(_versions(), dict(clock.seconds), parity))
            (folder / contract.MANIFEST).write_text(record.to_json(), encoding="utf-8")
    size_after = sum(file.stat().st_size for file in bundle.iterdir())
    return Report(bundle, clock.seconds, checkpoint.weights_size, size_after, parity)


def _graph(checkpoint: Checkpoint, max_length: int, clock: _Clock) -> tuple[ir.Model, GraphSpec]:
    try:
        with clock.step("trace"):
            spec, prepared = decoder_spec(checkpoint.model, max_length)
            with prepared:
                graph = trace(spec)
        with clock.step("fuse"):
            fuse(graph)
    except UnsupportedModelError as error:
        raise UnsupportedError(f"{checkpoint.source.name} cannot be exported: {error}") from error
    return graph, spec


def _float_graph(graph: ir.Model, folder: Path, measured: bool) -> tuple[Path, dict[str, str]]:
    """Write the float32 graph; when `measured`, a copy of it that also reports its Linear inputs."""
    path = folder / "decoder.onnx"
    if not measured:
        lower_to_float(graph)
        write_graph(graph, path)
        return path, {}
    twin = graph.clone()
    weights = add_energy_outputs(twin)
    lower_to_float(twin)
    write_graph(twin, path)
    return path, weights


def _importance(runner: GraphRunner, weights: dict[str, str], checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    ids = texts.ids(checkpoint.tokenizer, "calibration", _CALIBRATION_TOKENS, checkpoint.model)
    found = verify.energies(runner, ids, _WINDOW)
    return {weight: found[output] for weight, output in weights.items()}


def _compare(
    original: GraphRunner, quantized: GraphRunner, ids: list[int], max_length: int
) -> contract.QuantizedParity:
    window = min(_WINDOW, max_length)
    return verify.compare_quantized(lambda piece: verify.all_logits(original, piece), quantized, ids, window)


def _describe_scheme(options: ExportOptions, count: int) -> contract.Quantization:
    scheme = options.scheme
    if scheme is None:
        return contract.Quantization("none")
    return contract.Quantization(
        scheme=options.quantize,
        bits=scheme.bits,
        block_size=scheme.block_size,
        sensitive_block_size=min(scheme.block_size, SENSITIVE_BLOCK_SIZE),
        accuracy_level=scheme.accuracy_level,
        matrices=count,
    )


def _max_length(config: Any, options: ExportOptions) -> int:
    own = getattr(config.get_text_config(), "max_position_embeddings", None)
    asked = options.context_length
    if own is None and asked is None:
        raise ExportError(f"{config.model_type} sets no limit to its context; give one with --context-length")
    if own is not None and asked is not None and asked > own:
        raise InputError(f"--context-length {asked} is more than the model's own limit of {own}")
    limit = asked if asked is not None else own
    return int(limit or 0)


def _manifest(
    checkpoint: Checkpoint,
    graph: contract.GraphInfo,
    layers: list[contract.LayerCacheInfo],
    max_length: int,
    template: str | None,
    folder: Path,
) -> contract.Manifest:
    model, config = checkpoint.model, checkpoint.model.config
    text = config.get_text_config()
    return contract.Manifest(
        schema_version=contract.SCHEMA_VERSION,
        triform_version=importlib.metadata.version("triform"),
        form="decoder",
        task=catalog.decoder_task(),
        model_type=config.model_type,
        model_name=checkpoint.source.name,
        graphs={"decoder": graph},
        cache=contract.CacheInfo("float32", layers),
        max_length=max_length,
        vocab_size=int(text.vocab_size),
        parameters=model.num_parameters(),
        tokens=_tokens(checkpoint),
        generation=_generation_defaults(model.generation_config),
        tokenizer=contract.TokenizerInfo("tokenizer.json", template, _special_strings(checkpoint.tokenizer)),
        files=describe_files(folder),
        export=contract.ExportInfo({}, {}, None),
    )


def _tokens(checkpoint: Checkpoint) -> contract.Tokens:
    """Ids from the generation config, which knows best when to stop; the tokenizer fills the gaps."""
    generation, tokenizer = checkpoint.model.generation_config, checkpoint.tokenizer
    eos = generation.eos_token_id if generation.eos_token_id is not None else tokenizer.eos_token_id
    listed = [] if eos is None else [int(one) for one in (eos if isinstance(eos, list) else [eos])]
    bos = generation.bos_token_id if generation.bos_token_id is not None else tokenizer.bos_token_id
    pad = generation.pad_token_id if generation.pad_token_id is not None else tokenizer.pad_token_id
    return contract.Tokens(bos, listed, pad)


def _generation_defaults(config: Any) -> contract.GenerationDefaults:
    return contract.GenerationDefaults(config.do_sample, config.temperature, config.top_k, config.top_p)


def _special_strings(tokenizer: Any) -> dict[str, str]:
    return {key: str(value) for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}


def _versions() -> dict[str, str]:
    names = ("torch", "transformers", "optimum", "onnxscript", "onnx-ir", "onnxruntime", "tokenizers", "numpy")
    return {name: importlib.metadata.version(name) for name in names}


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
