"""Exports a table of static embeddings: read, trace, verify, quantize, compare, write."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PretrainedConfig

from triform.export.checkpoint.files.card import origin_of
from triform.export.checkpoint.sentence.static_vectors import StaticTable, read_table
from triform.export.checkpoint.source import Source
from triform.export.describe.manifest import ModelInfo, VocabularyInfo, form_manifest, write_manifest
from triform.export.describe.plan import Row, plan_rows, stored_as
from triform.export.graph.fusion import fuse
from triform.export.graph.tracing import trace
from triform.export.options import BITS, ExportOptions
from triform.export.quantize.blocks import Scheme, lower_embeddings
from triform.export.report import Clock, Report, finish
from triform.export.runners import EncoderRunner
from triform.export.samples.batches import Array, Sample, padded
from triform.export.verify.encoder import ReferenceBatch, quantized_encoder_parity, verify_encoder
from triform.export.write import describe_graph, staged, write_graph
from triform.models.encoder.static import StaticEncoder, static_spec
from triform.runtime.bundle.manifest import EmbeddingInfo, EncoderInfo, GraphInfo, Manifest, Quantization, Tokens
from triform.runtime.bundle.text_info import TokenizerInfo

_TASK, _OUTPUT = "feature-extraction", "sentence_embedding"
# Weights that share a scale in a quantized table.
_BLOCK_SIZE = 32
_PARITY_ROWS, _EVALUATION_ROWS = 5, 48


@dataclass(frozen=True)
class StaticCheckpoint:
    """A table of vectors and where it came from."""

    source: Source
    table: StaticTable


def plan(origin: Source, _: PretrainedConfig, options: ExportOptions) -> list[Row]:
    """The rows that describe what `export` would do, without reading the table."""
    steps = "load, trace, verify against PyTorch, quantize, compare, write"
    return plan_rows(origin.name, "encoder", _TASK, "static", [], stored_as(options.quantize), steps)


def load(origin: Source, _: PretrainedConfig, options: ExportOptions) -> StaticCheckpoint:
    """Read the vectors.

    Raises:
        ExportError: see `read_table`.
    """
    return StaticCheckpoint(origin, read_table(origin.path))


def export(checkpoint: StaticCheckpoint, bundle: Path, options: ExportOptions, clock: Clock) -> Report:
    """Turn static embeddings into a verified bundle.

    Raises:
        ExportError: the target cannot be used, or the graph does not match PyTorch.
    """
    table = checkpoint.table
    bits = BITS.get(options.quantize)
    block_size = options.block_size or _BLOCK_SIZE
    encoder = _encoder(table, min(block_size, _BLOCK_SIZE) if bits else 1)
    spec = static_spec(encoder, options.context_length or table.max_length)
    reference, evaluation = static_samples(table)
    with staged(bundle, options.force) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with clock.step("trace"):
            graph = trace(spec)
            fuse(graph)
        with clock.step("verify"):
            path = (Path(scratch) if bits else folder) / "encoder.onnx"
            write_graph(graph, path)
            runner = EncoderRunner(path, threads=1)
            batch = ReferenceBatch(reference, [static_outputs(encoder, padded(reference, table.pad))], table.pad)
            parity = verify_encoder(runner, spec.outputs, batch)
        quantization = Quantization("none")
        if bits:
            with clock.step("quantize"):
                count = lower_embeddings(graph, Scheme(bits, block_size, options.accuracy_level), {})
                write_graph(graph, folder / "encoder.onnx")
                quantization = Quantization(options.quantize, bits, matrices=count)
            with clock.step("compare"):
                quantized_parity = quantized_encoder_parity(
                    lambda arrays: runner.run(arrays)[_OUTPUT],
                    EncoderRunner(folder / "encoder.onnx", threads=1),
                    _OUTPUT,
                    evaluation,
                    table.pad,
                )
                parity = dataclasses.replace(parity, quantized=quantized_parity)
        with clock.step("write"):
            table.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
            info = describe_graph(graph, folder / "encoder.onnx", quantization, {"attention": "none"})
            write_manifest(_manifest(checkpoint, spec.max_length or 0, info), folder, parity, clock)
    return finish(bundle, checkpoint.source.size, parity, clock)


def _encoder(table: StaticTable, multiple: int) -> StaticEncoder:
    """The model to trace; its vectors are padded with zeros to a multiple of the block size."""
    dimension = table.vectors.shape[1]
    widened = torch.nn.functional.pad(table.vectors, (0, -dimension % multiple))
    return StaticEncoder(widened, dimension, table.unknown, table.normalize)


def static_samples(table: StaticTable) -> tuple[list[Sample], list[Sample]]:
    """Rows of random tokens for parity and for evaluation, because a text might have no word of the table."""
    generator = np.random.default_rng(0)
    samples: list[Sample] = [
        {"input_ids": generator.integers(0, len(table.vectors), length), "attention_mask": np.ones(length, np.int64)}
        for length in generator.integers(2, 80, _EVALUATION_ROWS)
    ]
    return samples[:_PARITY_ROWS], samples


def static_outputs(encoder: StaticEncoder, arrays: Mapping[str, Array]) -> torch.Tensor:
    """PyTorch's vectors for the arrays of a batch, float32 (batch, dimension)."""
    vectors: torch.Tensor = encoder(**{name: torch.from_numpy(array) for name, array in arrays.items()})
    return vectors


def _manifest(checkpoint: StaticCheckpoint, max_length: int, graph: GraphInfo) -> Manifest:
    table = checkpoint.table
    size, dimension = table.vectors.shape
    tokens = Tokens(None, [], table.pad)
    vocabulary = VocabularyInfo(TokenizerInfo("tokenizer.json", None, {}), tokens, size, max_length)
    model = ModelInfo(
        "encoder", _TASK, "static", checkpoint.source.name, size * dimension, origin_of(checkpoint.source.model_folder)
    )
    embedding = EmbeddingInfo(dimension, "mean", table.normalize, table.prompts, table.default_prompt)
    return dataclasses.replace(
        form_manifest(model, vocabulary, {"encoder": graph}), encoder=EncoderInfo(embedding=embedding)
    )
