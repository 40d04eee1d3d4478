"""Imports a decoder: describes it, gives its graph a bundle's inputs, compares, writes a bundle."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
from transformers import AutoModelForCausalLM

from triform.export.checkpoint.loading import load_checkpoint, read_config
from triform.export.checkpoint.resolve import find_checkpoint
from triform.export.checkpoint.source import Checkpoint
from triform.export.describe.end_tokens import ends_named_by
from triform.export.describe.generation_defaults import defaults_left_out, generation_defaults
from triform.export.describe.manifest import ModelInfo, VocabularyInfo, form_manifest, write_manifest
from triform.export.describe.special_tokens import generation_tokens
from triform.export.forms.decoder import context_limit, write_decoder_tokenizer
from triform.export.onnx_import.decoders.check import (
    OriginalDecoder,
    compare_with_original,
    compare_with_torch,
    longest_text,
    sample_ids,
)
from triform.export.onnx_import.decoders.described import Described, describe_decoder
from triform.export.onnx_import.decoders.graph import adapt_decoder
from triform.export.onnx_import.decoders.rotary_switch import rotary_switch
from triform.export.onnx_import.found import (
    Found,
    ImportOptions,
    has_rows_at_their_start,
    is_exact,
    parameters_of,
    quantization_of,
    rounds_together,
)
from triform.export.report import Clock
from triform.export.write import describe_graph, staged, write_graph
from triform.models import catalog
from triform.runtime.bundle.export_record import Parity
from triform.runtime.bundle.manifest import CacheInfo, GraphInfo, Manifest
from triform.runtime.errors import ExportError, InputError, option

_GRAPH = "decoder.onnx"


@dataclass(frozen=True)
class _Decoder:
    """What is known of a decoder before it is written.

    Attributes:
        described: what its files say.
        cache: what it keeps of a text.
        vocab_size: columns of its logits.
        limit: most tokens of a text.
        exact: whether it computes in float32 throughout.
        together: whether tokens of a run change each other, see `rounds_together`.
        told: whether it was told the positions of tokens, and takes the keys and values of short rows at the end.
    """

    described: Described
    cache: CacheInfo
    vocab_size: int
    limit: int
    exact: bool
    together: bool
    told: bool


def import_decoder(found: Found, bundle: Path, options: ImportOptions, clock: Clock) -> str:
    """Turn an ONNX graph of a decoder into a bundle; return its task. Arguments and errors as `import_encoder`."""
    if options.task is not None:
        raise InputError(f"{option('task')} is for encoders, and {found.path} is a decoder")
    with clock.step("load"):
        checkpoint = _checkpoint(options.against)
        described = describe_decoder(found.folder, None if checkpoint is None else checkpoint.source.model_folder)
        limit = _limit(found, described, options, clock)
        decoder = _adapt(found, described, limit)
    with staged(bundle, options.force) as staging:
        path = staging / _GRAPH
        with clock.step("write"):
            write_graph(found.graph, path)
        with clock.step("compare"):
            decoder, parity, said = _compare(decoder, found.path, path, checkpoint, clock)
        with clock.step("write"):
            notes = {**found.notes, "parity": said}
            info = describe_graph(found.graph, path, quantization_of(found.graph.graph), notes)
            manifest = _manifest(decoder, info, parameters_of(found.graph.graph), staging)
            write_manifest(manifest, staging, parity, clock)
    return catalog.WRITE


def _checkpoint(against: str | None) -> Checkpoint | None:
    if against is None:
        return None
    source = find_checkpoint(against)
    return load_checkpoint(source, read_config(source), AutoModelForCausalLM)


def _limit(found: Found, described: Described, options: ImportOptions, clock: Clock) -> int:
    limit = context_limit(described.config, options.context_length)
    switch = rotary_switch(found.graph.graph, described.config, described.genai, found.path)
    if switch is None or limit <= switch:
        return limit
    if options.context_length is not None:
        raise InputError(
            f"{option('context_length')} must be at most {switch}: {found.path} has other rotary frequencies "
            "(longrope) for longer texts, and keys in a cache cannot change theirs; export the checkpoint instead"
        )
    clock.notes.append(
        f"the longest context is {switch} tokens: longer texts have other rotary frequencies (longrope), and keys in a "
        "cache cannot change theirs"
    )
    return switch


def _adapt(found: Found, described: Described, limit: int) -> _Decoder:
    graph = found.graph.graph
    exact = is_exact(graph)
    given = [value.name for value in graph.inputs]
    told = described.names.inputs.get("position_ids", "position_ids") in given and not has_rows_at_their_start(graph)
    cache = adapt_decoder(found.graph, found.path, described.names, described.head_dim)
    width = list(graph.outputs[0].shape or [None])[-1]
    vocab_size = width if isinstance(width, int) else getattr(described.config, "vocab_size", None)
    if not isinstance(vocab_size, int):
        raise ExportError(f"neither {found.path} nor its config says how many tokens the vocabulary has")
    graph.outputs[0].shape = ir.Shape(["batch", "num_logits", vocab_size])
    return _Decoder(described, cache, vocab_size, limit, exact, rounds_together(graph), told)


def _compare(
    decoder: _Decoder, original: Path, path: Path, checkpoint: Checkpoint | None, clock: Clock
) -> tuple[_Decoder, Parity | None, str]:
    """Compare the written graph with the one that came, at `original`, and with PyTorch.

    Returns:
        the decoder with what was found out; the differences from PyTorch; and in words what was compared.
    """
    limit = longest_text(path, decoder.cache, decoder.limit)
    if limit < decoder.limit:
        clock.notes.append(f"the graph reads {limit} tokens at most, not {decoder.limit} as its config says")
    ids = sample_ids(decoder.described.tokenizer, decoder.vocab_size, limit)
    as_it_came = OriginalDecoder(original, decoder.described.names, decoder.cache)
    uneven, worst = compare_with_original(
        as_it_came, path, decoder.cache, ids, exact=decoder.exact, together=decoder.together, told=decoder.told
    )
    if worst:
        cause = "rounds all tokens of a run with one scale" if decoder.together else "rounds its activations"
        clock.notes.append(f"logits change by up to {worst:.1%} with how a text is split into runs: this graph {cause}")
    if not uneven:
        clock.notes.append("rows of different lengths are run apart: this graph cannot run them together")
    cache = dataclasses.replace(decoder.cache, uneven=uneven)
    decoder = dataclasses.replace(decoder, cache=cache, limit=limit)
    said = f"the graph as it came, on {len(ids)} tokens at once, in chunks, in single steps and in a batch"
    if checkpoint is None:
        return decoder, None, f"{said}; not PyTorch"
    parity = compare_with_torch(checkpoint, path, cache, ids, exact=decoder.exact)
    return decoder, parity, f"{said}; PyTorch, on the same"


def _manifest(decoder: _Decoder, graph: GraphInfo, parameters: int, folder: Path) -> Manifest:
    described = decoder.described
    tokenizer, notes = write_decoder_tokenizer(described.tokenizer, folder)
    tokens = generation_tokens(described.generation, described.tokenizer)
    ends = ends_named_by(described.source, described.tokenizer, decoder.vocab_size, tokens.eos)
    if not ends:
        notes.append("nothing names a token that ends an answer, so answers go on to the limit")
    vocabulary = VocabularyInfo(
        tokenizer,
        dataclasses.replace(tokens, eos=[token.id for token in ends]),
        decoder.vocab_size,
        decoder.limit,
    )
    notes += defaults_left_out(described.generation, has_source=False)
    info = ModelInfo(
        "decoder", catalog.WRITE, described.model_type, described.source.name, parameters, described.origin
    )
    manifest = form_manifest(info, vocabulary, {"decoder": graph})
    return dataclasses.replace(
        manifest,
        cache=decoder.cache,
        generation=generation_defaults(described.generation),
        export=dataclasses.replace(manifest.export, end_tokens=ends, notes=notes),
    )
