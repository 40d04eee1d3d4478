"""Exports a decoder: trace, fuse, verify, calibrate, quantize, compare, write."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import transformers
from transformers import PretrainedConfig

from triform.export.checkpoint import loading
from triform.export.checkpoint.processors import save_tokenizer
from triform.export.checkpoint.source import Checkpoint, Source
from triform.export.describe.chat_templates import DEFAULT, chat_templates, write_chat_templates
from triform.export.describe.end_tokens import end_tokens
from triform.export.describe.generation_defaults import defaults_left_out, generation_defaults
from triform.export.describe.manifest import VocabularyInfo, form_manifest, model_info, write_manifest
from triform.export.describe.plan import Row, plan_rows, size_rows, vocabulary_row
from triform.export.describe.special_tokens import special_strings, tokens_of
from triform.export.describe.template_engine import choose_engine
from triform.export.forms.decoders.blocks import build_from_blocks
from triform.export.forms.decoders.floats import build_from_floats, scheme_of
from triform.export.forms.decoders.graph import PROMPTS_FILE, StoredDecoder
from triform.export.options import KEEP, MIXED, SHORTEST_CONTEXT, ExportOptions
from triform.export.quantize.blocks import SENSITIVE_BLOCK_SIZE
from triform.export.report import Clock, Report, finish
from triform.export.write import describe_graph, staged
from triform.models import catalog
from triform.models.architectures import media_read
from triform.models.attention.rotary import fix_frequencies, switching_length
from triform.runtime.bundle.export_record import Parity
from triform.runtime.bundle.limits.contract import LARGEST
from triform.runtime.bundle.manifest import PROMPTS, GpuGraphs, GraphInfo, Manifest
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.decoder.templates.engines import end_engines
from triform.runtime.errors import ExportError, InputError, option


def plan(origin: Source, config: PretrainedConfig, options: ExportOptions) -> list[Row]:
    """The rows that describe what `export` would do, from the config alone."""
    if _keeps_blocks(origin, options):
        return _rows(origin, config, options, "the blocks of the checkpoint")
    if options.quantize == MIXED:
        return _rows(origin, config, options, "3 to 8 bit, blocks of 16 to 128, matrix by matrix")
    if options.quantize == "none":
        return _rows(origin, config, options, "float32")
    scheme = scheme_of(options)
    stored = f"{scheme.bits} bit, blocks of {scheme.block_size}"
    if scheme.block_size > SENSITIVE_BLOCK_SIZE:
        stored += f" ({SENSITIVE_BLOCK_SIZE} for attention inputs, head and embedding)"
    return _rows(origin, config, options, stored)


def _rows(origin: Source, config: PretrainedConfig, options: ExportOptions, stored: str) -> list[Row]:
    limit = str(_exported_limit(config, options.context_length))
    details = [*size_rows(config), vocabulary_row(config), ("context length", limit)]
    return plan_rows(origin.name, "decoder", catalog.WRITE, config.model_type, details, stored)


def load(origin: Source, config: PretrainedConfig, options: ExportOptions) -> Checkpoint:
    """Load the checkpoint with its language-model head.

    Raises:
        ExportError: see `loading.load_checkpoint`.
        InputError: the context length is beyond the model's.
    """
    context_limit(config, options.context_length)
    _keeps_blocks(origin, options)
    checkpoint = loading.load_checkpoint(origin, config, transformers.AutoModelForCausalLM, as_stored=True)
    return loading.of_texts(checkpoint, "input_ids") if media_read(config) else checkpoint


def export(checkpoint: Checkpoint, bundle: Path, options: ExportOptions, clock: Clock) -> Report:
    """Turn a loaded decoder into a verified bundle.

    Raises:
        ExportError: the target cannot be used, or the graph does not match PyTorch.
        UnsupportedError: the architecture cannot be traced.
    """
    max_length = _exported_limit(checkpoint.model.config, options.context_length)
    fix_frequencies(checkpoint.model, max_length)
    keeps_file = _keeps_blocks(checkpoint.source, options) and checkpoint.source.gguf is not None
    build = build_from_blocks if keeps_file else build_from_floats
    with staged(bundle, options.force) as folder:
        # First, because what it takes counts towards a target.
        tokenizer, notes = write_decoder_tokenizer(checkpoint.tokenizer, folder)
        decoders = build(checkpoint, folder, max_length, options, clock)
        with clock.step("write"):
            notes += _rotary_notes(checkpoint.model.config, max_length)
            manifest = _manifest(checkpoint, folder, decoders, options, tokenizer, notes)
            parity = _parity(decoders[0])
            write_manifest(manifest, folder, parity, clock)
    report = finish(bundle, checkpoint.weights_size, parity, clock)
    return dataclasses.replace(report, end_tokens=tuple(manifest.export.end_tokens))


def _parity(decoder: StoredDecoder) -> Parity:
    prompts = decoder.prompts
    return decoder.parity if prompts is None else dataclasses.replace(decoder.parity, prompts=prompts.parity)


def _keeps_blocks(origin: Source, options: ExportOptions) -> bool:
    """Whether to keep the blocks of the checkpoint.

    Raises:
        InputError: there are no blocks to keep.
    """
    if options.quantize != KEEP:
        return False
    if not loading.has_blocks(origin):
        raise InputError(
            f"{option('quantize')} keep is for GGUF files and checkpoints whose weights are quantized in blocks, which "
            f"{origin.name} is not"
        )
    return True


def context_limit(config: Any, context_length: int | None) -> int:
    """The most tokens of a text.

    Args:
        config: of the model.
        context_length: what the user asks for; None for the model's own limit.

    Raises:
        ExportError: the model has no limit, and the user gives none.
        InputError: the user asks for more than the model's, or than a graph can count.
    """
    if context_length is not None and context_length > LARGEST:
        raise InputError(f"{option('context_length')} must be at most {LARGEST}, not {context_length}")
    text = config.get_text_config()
    own = getattr(text, "max_position_embeddings", getattr(text, "max_seq_len", None))
    # XLNet's -1 says that there is no limit, and so does what no graph can count.
    own = None if own is not None and not 1 <= own <= LARGEST else own
    if own is None and context_length is None:
        raise ExportError(f"{config.model_type} sets no limit to its context; give one with {option('context_length')}")
    if own is not None and context_length is not None and context_length > own:
        raise InputError(f"{option('context_length')} {context_length} is more than the model's own limit of {own}")
    limit = int((context_length if context_length is not None else own) or 0)
    if limit < SHORTEST_CONTEXT:
        raise ExportError(
            f"this model reads {limit} tokens at most, too few to compare the exported graph with it; "
            f"{SHORTEST_CONTEXT} are needed"
        )
    return limit


def _exported_limit(config: Any, context_length: int | None) -> int:
    """As `context_limit`; by default no more than the texts that longrope's first set of frequencies is for."""
    limit, switch = context_limit(config, context_length), switching_length(config)
    return limit if switch is None or context_length is not None else min(limit, switch)


def _rotary_notes(config: Any, max_length: int) -> list[str]:
    """What is otherwise than in transformers, which changes the frequencies of longrope at a length."""
    switch = switching_length(config)
    if switch is None:
        return []
    if max_length > switch:
        return [
            f"texts of up to {switch} tokens are read with longrope's frequencies for longer ones too: keys in a cache "
            "cannot change theirs"
        ]
    return [
        f"longrope's frequencies are those for texts of up to {switch} tokens, which is the longest context; "
        f"{option('context_length')} with a larger number takes those for longer texts, for all texts"
    ]


def write_decoder_tokenizer(tokenizer: Any, folder: Path) -> tuple[TokenizerInfo, list[str]]:
    """Write the tokenizer and its chat templates; return their description and notes for the user."""
    save_tokenizer(tokenizer, folder)
    engine, notes = choose_engine(tokenizer)
    files = write_chat_templates(chat_templates(tokenizer), folder)
    # Processes that render templates began with all weights, and would keep them.
    end_engines()
    default, special = files.pop(DEFAULT, None), special_strings(tokenizer)
    return TokenizerInfo("tokenizer.json", default, special, chat_templates=files, template_engine=engine), notes


def _described(decoder: StoredDecoder, folder: Path) -> dict[str, GraphInfo]:
    graphs = {"decoder": describe_graph(decoder.graph, folder / decoder.file, decoder.quantization, decoder.notes)}
    prompts = decoder.prompts
    if prompts is not None:
        graphs[PROMPTS] = describe_graph(prompts.graph, folder / PROMPTS_FILE, prompts.quantization, {})
    return graphs


def _manifest(
    checkpoint: Checkpoint,
    folder: Path,
    decoders: list[StoredDecoder],
    options: ExportOptions,
    tokenizer: TokenizerInfo,
    notes: list[str],
) -> Manifest:
    model, ends = checkpoint.model, end_tokens(checkpoint)
    vocabulary = VocabularyInfo(
        tokenizer=tokenizer,
        tokens=dataclasses.replace(tokens_of(checkpoint), eos=[token.id for token in ends]),
        size=int(model.config.get_text_config().vocab_size),
        max_length=_exported_limit(model.config, options.context_length),
    )
    first, *others = decoders
    info = model_info(checkpoint, "decoder", catalog.WRITE)
    manifest = form_manifest(info, vocabulary, _described(first, folder))
    left_out = defaults_left_out(model.generation_config, has_source=False)
    gpu = [GpuGraphs(options.gpu_dtype, _described(item, folder), item.parity) for item in others]
    return dataclasses.replace(
        manifest,
        cache=first.cache,
        target="cpu" if options.for_cpu else "gpu",
        gpu=gpu[0] if gpu else None,
        generation=generation_defaults(model.generation_config),
        export=dataclasses.replace(manifest.export, end_tokens=ends, notes=[*notes, *left_out]),
    )
