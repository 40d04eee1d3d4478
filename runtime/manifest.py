"""The manifest: everything export knew about a model, and all the runtime may know.

One JSON file, ``manifest.json``, read into frozen dataclasses. Keys that are not known are ignored, so that a later
version may add some without a new schema; a newer schema is refused.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triform.runtime.errors import BundleError

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class TensorInfo:
    """Name, dtype and shape of a graph's input or output; a string in `shape` names a dynamic axis."""

    name: str
    dtype: str
    shape: list[int | str]


@dataclass(frozen=True)
class Quantization:
    """How a graph's weights are stored. Everything but `scheme` is None when it is ``"none"``."""

    scheme: str
    bits: int | None = None
    block_size: int | None = None
    sensitive_block_size: int | None = None
    accuracy_level: int | None = None
    matrices: int | None = None


@dataclass(frozen=True)
class GraphInfo:
    """One ONNX file of the bundle."""

    file: str
    data: str | None
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    operators: dict[str, int]
    quantization: Quantization
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerCacheInfo:
    """Geometry of one layer's key and value buffers: (batch, num_key_value_heads, capacity, head_dim)."""

    num_key_value_heads: int
    head_dim: int


@dataclass(frozen=True)
class CacheInfo:
    """The key/value buffers of a decoder."""

    dtype: str
    layers: list[LayerCacheInfo]


@dataclass(frozen=True)
class Tokens:
    """Special token ids. `eos` may list several; any of them ends a generation."""

    bos: int | None
    eos: list[int]
    pad: int | None


@dataclass(frozen=True)
class GenerationDefaults:
    """What the model's own generation config asks for; None where it says nothing."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


@dataclass(frozen=True)
class TokenizerInfo:
    """Files and special strings of the tokenizer."""

    file: str
    chat_template: str | None
    special: dict[str, str]


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes and SHA-256 (hex) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class QuantizedParity:
    """The quantized graph against the float one, on the text shipped with the exporter.

    Attributes:
        top1_agreement: share of positions where both prefer the same token.
        mean_kl: mean Kullback-Leibler divergence of the quantized prediction from the float one, in nats.
        perplexity_original: of the float graph.
        perplexity_quantized: of the quantized graph.
        tokens: positions compared.
    """

    top1_agreement: float
    mean_kl: float
    perplexity_original: float
    perplexity_quantized: float
    tokens: int


@dataclass(frozen=True)
class Parity:
    """The float graph against PyTorch: largest absolute logit differences, and the quantized graph against it.

    Attributes:
        prefill: all tokens in one run.
        chunked: the same tokens in several runs.
        step: the last tokens one at a time.
        ragged: two rows of different lengths in one batch.
        scale: largest absolute logit, for comparison.
        tolerance: what was allowed.
        quantized: None for a float bundle.
    """

    prefill: float
    chunked: float
    step: float
    ragged: float
    scale: float
    tolerance: float
    quantized: QuantizedParity | None = None


@dataclass(frozen=True)
class ExportInfo:
    """How the bundle came to be: tool versions, seconds per step, parity."""

    versions: dict[str, str]
    seconds: dict[str, float]
    parity: Parity | None


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest. See docs/bundle.md."""

    schema_version: int
    triform_version: str
    form: str
    task: str
    model_type: str
    model_name: str
    graphs: dict[str, GraphInfo]
    cache: CacheInfo | None
    max_length: int
    vocab_size: int
    parameters: int
    tokens: Tokens
    generation: GenerationDefaults
    tokenizer: TokenizerInfo
    files: dict[str, FileInfo]
    export: ExportInfo

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Read and check a bundle's manifest.

    Raises:
        BundleError: it is missing, is not JSON, is of a newer schema, or lacks a key or has a value of a wrong type.
    """
    path = folder / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BundleError(f"{folder} is not a bundle: it has no {MANIFEST}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read: {error}") from None
    try:
        content = json.loads(text)
    except ValueError as error:
        raise BundleError(f"{path} is not valid JSON ({error}); export the model again") from None
    if not isinstance(content, dict):
        raise BundleError(f"{path} must hold a JSON object; export the model again")
    version = content.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"{path} has schema version {version}, made by a newer Triform; "
            f"this one reads up to {SCHEMA_VERSION}: upgrade"
        )
    try:
        manifest: Manifest = _build(Manifest, content, "")
    except _Mismatch as mismatch:
        raise BundleError(f"{path}: {mismatch}; export the model again") from None
    return manifest


class _Mismatch(Exception):
    """Where and how the JSON differs from the dataclasses."""


def _build(kind: Any, value: Any, where: str) -> Any:
    """Turn plain JSON into `kind`, a dataclass, a container, a union or a plain type."""
    origin = typing.get_origin(kind)
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(kind, value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise _Mismatch(f"{where} must be an object")
        inner = typing.get_args(kind)[1]
        return {key: _build(inner, item, f"{where}.{key}") for key, item in value.items()}
    if origin is list:
        if not isinstance(value, list):
            raise _Mismatch(f"{where} must be a list")
        inner = typing.get_args(kind)[0]
        return [_build(inner, item, f"{where}[{index}]") for index, item in enumerate(value)]
    if origin is types.UnionType:
        return _build_union(typing.get_args(kind), value, where)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise _Mismatch(f"{where} must be a {kind.__name__}, not {value!r}")
    return value


def _build_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _Mismatch(f"{where} must be an object")
    hints = typing.get_type_hints(kind)
    arguments = {}
    for item in dataclasses.fields(kind):
        name = f"{where}.{item.name}" if where else item.name
        if item.name in value:
            arguments[item.name] = _build(hints[item.name], value[item.name], name)
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise _Mismatch(f"the key {name} is missing")
    return kind(**arguments)


def _build_union(kinds: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    choices = [kind for kind in kinds if kind is not type(None)]
    for kind in choices[:-1]:
        try:
            return _build(kind, value, where)
        except _Mismatch:
            continue
    return _build(choices[-1], value, where)
