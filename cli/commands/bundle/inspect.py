"""``triform inspect``."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import BundleFolder

if TYPE_CHECKING:
    from triform.runtime.bundle.export_record import ExportInfo
    from triform.runtime.bundle.manifest import CacheInfo, GraphInfo, Manifest, TensorInfo

HELP = """Show what a bundle contains: form, task, graphs, shapes, sizes, quantization, parity.

\b
  triform inspect BUNDLE
  triform inspect BUNDLE --json
  triform inspect BUNDLE --sbom > bundle.cdx.json        a bill of materials, CycloneDX 1.6
  triform inspect BUNDLE --sbom --requirements requirements-device.txt

A bill of materials lists the model, the files with their hashes, and the packages that run it: those installed here, or
those of a requirements file with their hashes.
"""


def run(
    bundle: BundleFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON.")] = False,
    sbom: Annotated[bool, typer.Option("--sbom", help="Print a bill of materials, CycloneDX 1.6 in JSON.")] = False,
    requirements: Annotated[
        Optional[Path], typer.Option(help="With --sbom: list the packages of this file, not those installed.")
    ] = None,
) -> int:
    """Parse, call, render."""
    from triform.runtime.bundle.folder import open_bundle
    from triform.runtime.errors import InputError

    if sbom and as_json:
        raise InputError("--json prints the manifest and --sbom a bill of materials, also in JSON: give one of them")
    if requirements is not None and not sbom:
        raise InputError("--requirements is for --sbom")
    opened = open_bundle(bundle)
    if sbom:
        from triform.cli.outputs.sbom import bill_of_materials
        from triform.runtime.supply_chain.packages import installed_packages, locked_packages

        packages = installed_packages() if requirements is None else locked_packages(requirements)
        print(bill_of_materials(opened, packages))
        return 0
    manifest = opened.manifest
    print(json.dumps(json.loads(manifest.to_json())) if as_json else _render(manifest))
    return 0


def _render(manifest: Manifest) -> str:
    from triform.cli.outputs.tables import encoder_parity_rows, end_tokens, megabytes, parity_rows, rows
    from triform.runtime.bundle.targets import manifests

    lines = [
        ("model", manifest.model_name),
        ("form", manifest.form),
        ("task", manifest.task),
        ("model type", manifest.model_type),
        ("parameters", f"{manifest.parameters / 1e6:.1f} M"),
        ("target", _targets(manifest)),
    ]
    # Models of images and audio read no tokens.
    if manifest.max_length:
        lines.append(("context", f"{manifest.max_length} tokens"))
    if manifest.vocab_size:
        lines.append(("vocabulary", str(manifest.vocab_size)))
    if manifest.form == "decoder":
        lines.append(("chat template", _templates(manifest)))
    lines.append(("size", megabytes(sum(info.size for info in manifest.files.values()))))
    if manifest.export.end_tokens:
        lines.append(("answers end at", end_tokens(manifest.export.end_tokens)))
    lines += [("note", note) for note in manifest.export.notes]
    if manifest.cache is not None:
        lines += _cache_rows(manifest.cache)
    for one_target in manifests(manifest):
        suffix = " for GPUs" if one_target.target == "gpu" else ""
        for name, graph in one_target.graphs.items():
            lines += _graph_rows(f"{name}{suffix}", graph)
    lines += [(f"file {name}", f"{megabytes(info.size)}  {info.sha256[:16]}") for name, info in manifest.files.items()]
    if manifest.export.parity is not None:
        lines += parity_rows(manifest.export.parity)
    if manifest.export.encoder_parity is not None:
        lines += encoder_parity_rows(manifest.export.encoder_parity)
    lines += _gpu_parity_rows(manifest)
    return rows([*lines, *_version_rows(manifest.export)])


def _targets(manifest: Manifest) -> str:
    if manifest.gpu is not None:
        return f"CPUs, and GPUs with {manifest.gpu.dtype}"
    if manifest.target == "cpu":
        return "CPUs"
    dtypes = {graph.notes.get("dtype", "16-bit floats") for graph in manifest.graphs.values()}
    return f"GPUs with {', '.join(sorted(dtypes))}"


def _gpu_parity_rows(manifest: Manifest) -> list[tuple[str, str]]:
    from triform.cli.outputs.tables import encoder_parity_rows, parity_rows
    from triform.runtime.bundle.export_record import Parity

    parity = None if manifest.gpu is None else manifest.gpu.parity
    if parity is None:
        return []
    lines = parity_rows(parity) if isinstance(parity, Parity) else encoder_parity_rows(parity)
    return [(f"for GPUs: {name}", value) for name, value in lines]


def _cache_rows(cache: CacheInfo) -> list[tuple[str, str]]:
    lines = []
    if cache.layers:
        per_token = sum(8 * layer.num_key_value_heads * layer.head_dim for layer in cache.layers)
        lines.append(("cache", f"{len(cache.layers)} layers, {per_token / 1e3:.1f} kB a token"))
    if cache.states:
        size = sum(4 * math.prod(state.shape) for state in cache.states)
        kinds = Counter(state.kind for state in cache.states)
        listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        lines.append(("states", f"{len(cache.states)} of fixed size ({listed}), {size / 1e3:.1f} kB a text"))
    return lines


def _templates(manifest: Manifest) -> str:
    info = manifest.tokenizer
    if info is None or not info.has_chat_template:
        return "no"
    names = (["default"] if info.chat_template is not None else []) + list(info.chat_templates)
    return "yes" if names == ["default"] else ", ".join(names)


def _version_rows(export: ExportInfo) -> list[tuple[str, str]]:
    lines = [("exported with", ", ".join(f"{name} {version}" for name, version in export.versions.items()))]
    if export.newer_than_tested:
        tested = ", ".join(f"{name} {version.tested}" for name, version in export.newer_than_tested.items())
        lines.append(("tested with", f"{tested} only"))
    return lines


def _graph_rows(name: str, graph: GraphInfo) -> list[tuple[str, str]]:
    quantization = graph.quantization
    stored = quantization.scheme
    if quantization.activations is not None:
        ways = Counter(quantization.activations.values())
        grids = ", ".join(f"{count} {way}" for way, count in ways.items())
        stored += f": {quantization.matrices} matrices"
        if quantization.block_size is not None:
            stored += f", {quantization.bits} bit in blocks of {quantization.block_size}"
        stored += f"; {len(quantization.activations)} products of 8 bit weights and activations ({grids})"
    elif quantization.bits is not None:
        stored += (
            f": {quantization.matrices} matrices, {quantization.bits} bit, blocks of {quantization.block_size} "
            f"({quantization.sensitive_block_size} where it matters), accuracy level {quantization.accuracy_level}"
        )
    elif quantization.formats is not None:
        kinds = ", ".join(f"{count} {name}" for name, count in quantization.formats.items())
        stored += f": {quantization.matrices} matrices ({kinds}), accuracy level {quantization.accuracy_level}"
    operators = ", ".join(f"{count} {kind}" for kind, count in graph.operators.items())
    return [
        (f"graph {name}", f"{sum(graph.operators.values())} operators: {operators}"),
        ("  inputs", _tensors(graph.inputs)),
        ("  outputs", _tensors(graph.outputs)),
        ("  weights", stored),
        *((f"  {key}", value) for key, value in graph.notes.items()),
    ]


def _tensors(infos: list[TensorInfo]) -> str:
    """The tensors that differ; layers repeat, so only the first layer's cache is written out."""
    shown = [info for info in infos if not _is_later_layer(info.name)]
    hidden = len(infos) - len(shown)
    listed = "; ".join(f"{info.name} {info.dtype} [{', '.join(map(str, info.shape))}]" for info in shown)
    return f"{listed}; {hidden} more of the kind" if hidden else listed


def _is_later_layer(name: str) -> bool:
    parts = name.split(".")
    return len(parts) > 1 and parts[1].isdigit() and parts[1] != "0"
