"""A decoder becomes a bundle: trace, fuse, verify, measure, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
import transformers
from transformers import PretrainedConfig

from triform.export.checkpoint import source
from triform.export.checkpoint.source import Checkpoint, Source, save_tokenizer
from triform.export.describe.generation_defaults import generation_defaults
from triform.export.describe.manifest import VocabularyInfo, form_manifest, model_info, write_manifest
from triform.export.describe.plan import Row, plan_rows, size_rows, vocabulary_row
from triform.export.describe.special_tokens import special_strings, tokens_of
from triform.export.graph.fused import fused_graph
from triform.export.options import BITS, ExportOptions
from triform.export.quantize.blocks import SENSITIVE_BLOCK_SIZE, Scheme, lower_to_blocks, lower_to_float
from triform.export.quantize.energies import add_energy_outputs, energies
from triform.export.report import Clock, Report, finish
from triform.export.runners import GraphRunner, usable_cores
from triform.export.samples import texts
from triform.export.verify import decoder as verify
from triform.export.verify.decoder import check_states, reference_states
from triform.export.write import describe_graph, staged, write_graph
from triform.models import catalog
from triform.models.decoder.graph import decoder_spec
from triform.models.decoder.hidden_states import with_hidden_states
from triform.models.spec import GraphSpec
from triform.runtime.bundle import manifest as contract
from triform.runtime.bundle.export_record import QuantizedParity
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import ExportError, InputError, option

_DEFAULT_BLOCK_SIZE = {"int8": 128, "int4": 64}
# Tokens used for parity, for calibration, and for comparing the quantized graph.
_PARITY_TOKENS, _CALIBRATION_TOKENS, _COMPARED_TOKENS, _WINDOW = 192, 1536, 1024, 512


def plan(found: Source, config: PretrainedConfig, options: ExportOptions) -> list[Row]:
    """What `export` would do, from the config alone: rows of (what, value)."""
    scheme = _scheme(options)
    stored = "float32" if scheme is None else f"{scheme.bits} bit, blocks of {scheme.block_size}"
    if scheme is not None and scheme.block_size > SENSITIVE_BLOCK_SIZE:
        stored += f" ({SENSITIVE_BLOCK_SIZE} for attention inputs, head and embedding)"
    details = [*size_rows(config), vocabulary_row(config), ("context length", str(_max_length(config, options)))]
    return plan_rows(found.name, "decoder", catalog.decoder_task(), config.model_type, details, stored)


def load(found: Source, config: PretrainedConfig, options: ExportOptions) -> Checkpoint:
    """Load the checkpoint with its language-model head.

    Raises:
        ExportError: see `source.load`.
        InputError: the context length is beyond the model's.
    """
    _max_length(config, options)
    return source.load(found, config, transformers.AutoModelForCausalLM)


def export(checkpoint: Checkpoint, bundle: Path, options: ExportOptions, clock: Clock) -> Report:
    """Turn a loaded decoder into a verified bundle.

    Raises:
        ExportError: the target cannot be used, or the graph does not match PyTorch.
        UnsupportedError: the architecture cannot be traced.
    """
    scheme = _scheme(options)
    max_length = _max_length(checkpoint.model.config, options)
    with staged(bundle, options.force) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        ids = texts.ids(checkpoint.tokenizer, "evaluation", _COMPARED_TOKENS, checkpoint.model)
        with clock.step("reference"):
            parity_ids = ids[: min(_PARITY_TOKENS, max_length - 8)]
            expected = verify.reference_logits(checkpoint.model, parity_ids)
            states = reference_states(checkpoint.model, parity_ids) if options.hidden_states else None
        graph, spec = _graph(checkpoint, max_length, options.hidden_states, clock)
        layers = [contract.LayerCacheInfo(item.num_key_value_heads, item.head_dim) for item in spec.cache]
        with clock.step("verify"):
            original, weights = _float_graph(graph, Path(scratch) if scheme else folder, scheme is not None)
            runner = GraphRunner(original, layers, usable_cores())
            parity = verify.compare_with_reference(runner, expected, parity_ids)
            if states is not None:
                check_states(runner, states, parity_ids)
        quantization = contract.Quantization("none")
        if scheme is not None:
            with clock.step("quantize"):
                importance = _importance(runner, weights, checkpoint, min(_WINDOW, max_length))
                count = lower_to_blocks(graph, scheme, importance)
                write_graph(graph, folder / "decoder.onnx")
                quantization = _describe_scheme(scheme, count)
            with clock.step("compare"):
                quantized = GraphRunner(folder / "decoder.onnx", layers, usable_cores())
                parity = dataclasses.replace(parity, quantized=_compare(runner, quantized, ids, max_length))
        with clock.step("write"):
            template = save_tokenizer(checkpoint.tokenizer, folder)
            info = describe_graph(graph, folder / "decoder.onnx", quantization, dict(spec.notes))
            write_manifest(_manifest(checkpoint, info, layers, max_length, template), folder, parity, clock)
    return finish(bundle, checkpoint.weights_size, parity, clock)


def _scheme(options: ExportOptions) -> Scheme | None:
    """The quantization scheme, or None for float32."""
    name = options.quantize or "int4"
    if name == "none":
        return None
    return Scheme(BITS[name], options.block_size or _DEFAULT_BLOCK_SIZE[name], options.accuracy_level)


def _graph(checkpoint: Checkpoint, max_length: int, hidden_states: bool, clock: Clock) -> tuple[ir.Model, GraphSpec]:
    def prepare() -> tuple[GraphSpec, ExitStack]:
        spec, prepared = decoder_spec(checkpoint.model, max_length)
        with prepared:
            return (with_hidden_states(spec) if hidden_states else spec), prepared.pop_all()

    return fused_graph(checkpoint.source.name, prepare, clock)


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


def _importance(
    runner: GraphRunner, weights: dict[str, str], checkpoint: Checkpoint, window: int
) -> dict[str, torch.Tensor]:
    ids = texts.ids(checkpoint.tokenizer, "calibration", _CALIBRATION_TOKENS, checkpoint.model)
    found = energies(runner, ids, window)
    return {weight: found[output] for weight, output in weights.items()}


def _compare(original: GraphRunner, quantized: GraphRunner, ids: list[int], max_length: int) -> QuantizedParity:
    window = min(_WINDOW, max_length)
    return verify.compare_quantized(lambda piece: verify.all_logits(original, piece), quantized, ids, window)


def _describe_scheme(scheme: Scheme, count: int) -> contract.Quantization:
    return contract.Quantization(
        scheme=f"int{scheme.bits}",
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
        raise ExportError(f"{config.model_type} sets no limit to its context; give one with {option('context_length')}")
    if own is not None and asked is not None and asked > own:
        raise InputError(f"{option('context_length')} {asked} is more than the model's own limit of {own}")
    limit = asked if asked is not None else own
    return int(limit or 0)


def _manifest(
    checkpoint: Checkpoint,
    graph: contract.GraphInfo,
    layers: list[contract.LayerCacheInfo],
    max_length: int,
    template: str | None,
) -> contract.Manifest:
    model = checkpoint.model
    vocabulary = VocabularyInfo(
        tokenizer=TokenizerInfo("tokenizer.json", template, special_strings(checkpoint.tokenizer)),
        tokens=tokens_of(checkpoint),
        size=int(model.config.get_text_config().vocab_size),
        max_length=max_length,
    )
    return dataclasses.replace(
        form_manifest(model_info(checkpoint, "decoder", catalog.decoder_task()), vocabulary, {"decoder": graph}),
        cache=contract.CacheInfo("float32", layers),
        generation=generation_defaults(model.generation_config),
    )
