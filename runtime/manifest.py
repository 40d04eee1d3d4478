"""The manifest: everything export knew about a model, and all the runtime may know.

One JSON file, ``manifest.json``, read into frozen dataclasses. Keys that are not known are ignored, so that a later
version may add some without a new schema; a newer schema is refused.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
# Pillow's names of its filters, in the order of its numbers for them.
RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")


@dataclass(frozen=True)
class TensorInfo:
    """Name, dtype and shape of a graph's input or output; a string in `shape` names a dynamic axis."""

    name: str
    dtype: str
    shape: list[int | str]


@dataclass(frozen=True)
class Quantization:
    """How a graph's weights are stored. Everything but `scheme` is None when it is ``"none"``.

    Attributes:
        scheme: none, int8 or int4.
        bits: of a weight.
        block_size: weights that share a scale; None where each output column has one.
        sensitive_block_size: the same, of the products whose error matters most.
        accuracy_level: of MatMulNBits.
        matrices: how many are quantized.
        activations: by weight, how what it multiplies is rounded to 8 bits: on one grid for all ("static"), or on a
            grid for each row ("rows").
    """

    scheme: str
    bits: int | None = None
    block_size: int | None = None
    sensitive_block_size: int | None = None
    accuracy_level: int | None = None
    matrices: int | None = None
    activations: dict[str, str] | None = None


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
    mask: int | None = None


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
class EmbeddingInfo:
    """What the output ``sentence_embedding``, of a picture ``image_embedding``, is.

    Attributes:
        dimension: its width.
        pooling: how tokens became one vector, in sentence-transformers' terms: mean, cls, max, lasttoken, ….
        normalized: whether its length is 1.
        prompts: texts to put before an input, by name, such as "query".
        default_prompt: the name of the one to use when none is named.
    """

    dimension: int
    pooling: str
    normalized: bool
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


@dataclass(frozen=True)
class ImageInfo:
    """How a picture becomes `pixel_values`, in the order of the attributes. A step that is None is left out.

    Attributes:
        channels: of `pixel_values`; 3 is RGB.
        height: of `pixel_values`.
        width: of `pixel_values`.
        resize: [height, width], or [shortest edge], to resize to; the other edge is cut to whole pixels.
        resample: Pillow's name of the filter that resizes: bilinear, bicubic, lanczos, nearest, box or hamming.
        crop: [height, width] to cut from the middle.
        rescale: what pixels from 0 to 255 are multiplied by.
        mean: subtracted per channel, after rescaling.
        std: divided by per channel.
    """

    channels: int
    height: int
    width: int
    resize: list[int]
    resample: str
    crop: list[int] | None
    rescale: float | None
    mean: list[float] | None
    std: list[float] | None


@dataclass(frozen=True)
class ContrastInfo:
    """How pictures and texts are compared: scores of ``scale * (image_embedding · sentence_embedding) + bias``.

    Attributes:
        scale: see above.
        bias: see above.
        scores: what makes scores of one picture's numbers: softmax over the texts, or sigmoid of each.
        text_length: tokens that every text is padded to, the padding read as if it were text; None where it is hidden.
    """

    scale: float
    bias: float
    scores: str
    text_length: int | None = None


@dataclass(frozen=True)
class EncoderInfo:
    """What an encoder's outputs mean.

    Attributes:
        embedding: of ``sentence_embedding`` or ``image_embedding``; None when there is none.
        labels: the name of each column of ``logits``, for classification and tagging.
        problem_type: of a classification: single_label_classification, multi_label_classification or regression.
        hidden_states: how many outputs ``hidden_states.{i}`` there are.
        image: None when the model sees no pictures.
        contrast: of a model that compares pictures with texts: the graph ``image`` sees the pictures then.
    """

    embedding: EmbeddingInfo | None = None
    labels: list[str] = field(default_factory=list)
    problem_type: str | None = None
    hidden_states: int = 0
    image: ImageInfo | None = None
    contrast: ContrastInfo | None = None


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
class QuantizedEncoderParity:
    """The quantized graph against the float one, on the text or pictures shipped with the exporter.

    Attributes:
        cosine_mean: of the two graphs' vectors or logits, over rows.
        cosine_worst: the same, of the row that suffers most.
        rows: compared.
    """

    cosine_mean: float
    cosine_worst: float
    rows: int


@dataclass(frozen=True)
class EncoderParity:
    """The float graph against PyTorch: largest absolute differences over all outputs, where there are tokens.

    Attributes:
        batch: rows of different lengths, padded, in one run.
        single: each row in a run of its own.
        scale: largest absolute output, for comparison.
        tolerance: what was allowed.
        quantized: None for a float bundle.
    """

    batch: float
    single: float
    scale: float
    tolerance: float
    quantized: QuantizedEncoderParity | None = None


@dataclass(frozen=True)
class ExportInfo:
    """How the bundle came to be: tool versions, seconds per step, parity of a decoder or of an encoder."""

    versions: dict[str, str]
    seconds: dict[str, float]
    parity: Parity | None = None
    encoder_parity: EncoderParity | None = None


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest. See docs/bundle.md.

    A model that reads no text has no tokenizer, and 0 for `max_length` and `vocab_size`.
    """

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
    tokenizer: TokenizerInfo | None
    files: dict[str, FileInfo]
    export: ExportInfo
    encoder: EncoderInfo | None

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"
