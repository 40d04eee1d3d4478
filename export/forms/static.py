"""Static embeddings become a bundle: read, trace, verify, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PretrainedConfig

from triform.export.checkpoint.source import Source
from triform.export.checkpoint.static_vectors import StaticTable, read_table
from triform.export.describe.manifest import ModelInfo, VocabularyInfo, form_manifest, write_manifest
from triform.export.describe.plan import Row, plan_rows, stored_as
from triform.export.graph.fusion import fuse
from triform.export.graph.tracing import trace
from triform.export.options import BITS, ExportOptions
from triform.export.quantize.blocks import Scheme, lower_embeddings
from triform.export.report import Clock, Report, finish
from triform.export.runners import EncoderRunner
from triform.export.samples.batches import Sample, padded
from triform.export.verify.encoder import compare_quantized, compare_with_reference
from triform.export.write import describe_graph, staged, write_graph
from triform.models.encoder.static import StaticEncoder, static_spec
from triform.runtime.bundle import manifest as contract
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import InputError, option

_TASK = "feature-extraction"
# Numbers that share a scale in a quantized table.
_BLOCK_SIZE = 32
PARITY_ROWS, _COMPARED_ROWS = 5, 48


@dataclass(frozen=True)
class StaticCheckpoint:
    """What was read, and where from."""

    source: Source
    table: StaticTable


def plan(found: Source, _: PretrainedConfig, options: ExportOptions) -> list[Row]:
    """What `export` would do: rows of (what, value)."""
    steps = "load, trace, verify against PyTorch, quantize, compare, write"
    return plan_rows(found.name, "encoder", _TASK, "static", [], stored_as(options.quantize), steps)


def load(found: Source, _: PretrainedConfig, options: ExportOptions) -> StaticCheckpoint:
    """Read the vectors.

    Raises:
        InputError: an option is for models with layers.
        ExportError: see `read_table`.
    """
    if options.task not in (None, _TASK):
        raise InputError(f"{option('task')} {options.task} is not for static embeddings, which are for {_TASK}")
    if options.hidden_states:
        raise InputError(f"{option('hidden_states')} is not for static embeddings, which have no layers")
    return StaticCheckpoint(found, read_table(Path(found.location)))


def export(checkpoint: StaticCheckpoint, bundle: Path, options: ExportOptions, clock: Clock) -> Report:
    """Turn static embeddings into a verified bundle.

    Raises:
        ExportError: the target cannot be used, or the graph does not match PyTorch.
    """
    table = checkpoint.table
    bits = BITS.get(options.quantize or "int8")
    block_size = options.block_size or _BLOCK_SIZE
    missing = -table.vectors.shape[1] % min(block_size, _BLOCK_SIZE) if bits else 0
    widened = torch.nn.functional.pad(table.vectors, (0, missing))
    encoder = StaticEncoder(widened, table.vectors.shape[1], table.unknown, table.normalize)
    spec = static_spec(encoder, options.context_length or table.max_length)
    pad = table.unknown or 0
    with staged(bundle, options.force) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with clock.step("trace"):
            graph = trace(spec)
            fuse(graph)
        with clock.step("verify"):
            path = (Path(scratch) if bits else folder) / "encoder.onnx"
            write_graph(graph, path)
            runner = EncoderRunner(path, threads=1)
            compared = samples_of(table)
            samples = compared[:PARITY_ROWS]
            batch = {name: torch.from_numpy(value) for name, value in padded(samples, pad).items()}
            expected = [encoder(**batch)]
            parity = compare_with_reference(runner, spec.outputs, expected, samples, pad)
        quantization = contract.Quantization("none")
        if bits:
            with clock.step("quantize"):
                count = lower_embeddings(graph, Scheme(bits, block_size, options.accuracy_level), {})
                write_graph(graph, folder / "encoder.onnx")
                quantization = contract.Quantization(options.quantize or "int8", bits, matrices=count)
            with clock.step("compare"):
                small = EncoderRunner(folder / "encoder.onnx", threads=1)
                judged = "sentence_embedding"
                measured = compare_quantized(lambda one: runner.run(one)[judged], small, judged, compared, pad)
                parity = dataclasses.replace(parity, quantized=measured)
        with clock.step("write"):
            table.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
            info = describe_graph(graph, folder / "encoder.onnx", quantization, {"attention": "none"})
            write_manifest(_manifest(checkpoint, spec.max_length or 0, info), folder, parity, clock)
    return finish(bundle, checkpoint.source.size, parity, clock)


def samples_of(table: StaticTable) -> list[Sample]:
    """Rows of random tokens: a text would have none of the words of a table in another language."""
    generator = np.random.default_rng(0)
    return [
        {"input_ids": generator.integers(0, len(table.vectors), length), "attention_mask": np.ones(length, np.int64)}
        for length in generator.integers(2, 80, _COMPARED_ROWS)
    ]


def _manifest(checkpoint: StaticCheckpoint, max_length: int, graph: contract.GraphInfo) -> contract.Manifest:
    table = checkpoint.table
    size, dimension = table.vectors.shape
    tokens = contract.Tokens(None, [], table.unknown or 0)
    vocabulary = VocabularyInfo(TokenizerInfo("tokenizer.json", None, {}), tokens, size, max_length)
    model = ModelInfo("encoder", _TASK, "static", checkpoint.source.name, size * dimension)
    embedding = contract.EmbeddingInfo(dimension, "mean", table.normalize, table.prompts, table.default_prompt)
    return dataclasses.replace(
        form_manifest(model, vocabulary, {"encoder": graph}), encoder=contract.EncoderInfo(embedding=embedding)
    )
