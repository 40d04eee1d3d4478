"""The manifest: everything that the export knew about a model, and the only thing that the runtime knows.

One JSON file, ``manifest.json``, read into frozen dataclasses. Unknown keys are ignored, so that a later version can
add some without a new schema; another schema is refused.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal, get_args

from triform.runtime.bundle.export_record import EncoderParity, ExportInfo, Parity
from triform.runtime.bundle.generation_defaults import GenerationDefaults
from triform.runtime.bundle.media_info import AudioInfo, CtcInfo, ImageInfo, SpeechInfo
from triform.runtime.bundle.text_info import BoxesInfo, SourceTextInfo, TaskPrefix, TokenizerInfo
from triform.runtime.checked_json import sealed

MANIFEST = "manifest.json"
# A signature of it, see `supply_chain/signing.py`.
SIGNATURE = "manifest.json.sig"
# The key of the manifest's own hash.
CHECKSUM = "manifest_sha256"
# Version 3 added `CacheInfo.states`, version 4 graphs for GPUs, version 5 `CacheInfo.growth`, version 6 the graph for
# prompts, version 7 `GraphInfo.packed`, version 8 `TokenizerInfo.truncation_side` and `EncoderInfo.context_first`; a
# bundle is written in the oldest version that has what it needs.
SCHEMA_VERSION = 8
PACKED_SCHEMA_VERSION = 7
PROMPTS_SCHEMA_VERSION = 6
GROWTH_SCHEMA_VERSION = 5
GPU_SCHEMA_VERSION = 4
STATES_SCHEMA_VERSION = 3
OLDEST_SCHEMA_VERSION = 2
# The graph of a decoder that reads long prompts: its inputs and outputs are those of the graph "decoder".
PROMPTS = "prompts"
# How weights are stored, see `Quantization.scheme`.
SCHEMES = ("none", "int8", "int4", "keep", "mixed")
ProblemType = Literal["single_label_classification", "multi_label_classification", "regression"]
Relevance = Literal["identity", "sigmoid", "tanh"]
RELEVANCE: tuple[Relevance, ...] = get_args(Relevance)
SourceKind = Literal["text", "audio", "image"]
# What graphs are made for: the numbers that they compute with, and where they take the lengths of texts from.
BundleTarget = Literal["cpu", "gpu"]
# How a graph adds the keys and values of new tokens to those of a text, see `CacheInfo.growth`.
CacheGrowth = Literal["in_place", "concatenated"]
# What a GPU computes with.
GpuDtype = Literal["float16", "bfloat16"]


@dataclass(frozen=True)
class TensorInfo:
    """Name, dtype and shape of a graph's input or output; a string in `shape` names a dynamic axis."""

    name: str
    dtype: str
    shape: list[int | str]


@dataclass(frozen=True)
class Quantization:
    """How a graph's weights are stored. All attributes but `scheme` are None if that is ``"none"``.

    Attributes:
        scheme: none, int8, int4, keep for the blocks of the file that was exported, or mixed where each matrix has bits
            and a block size of its own.
        bits: per weight.
        block_size: number of weights that share a scale; None if each output column has one scale.
        sensitive_block_size: the same, for the products whose error matters most.
        accuracy_level: of MatMulNBits.
        matrices: number of quantized matrices.
        formats: for ``"keep"``: the number of matrices in each of GGUF's formats; int8 counts those that were floats,
            or in blocks that no operator supports. For ``"mixed"``: the number in each of the ways of storing them.
        products: for ``"mixed"``: by weight, how it is stored.
        activations: by weight, how its input is rounded to 8 bits: with one scale for all rows ("static"), or with a
            scale for each row ("rows").
    """

    scheme: str
    bits: int | None = None
    block_size: int | None = None
    sensitive_block_size: int | None = None
    accuracy_level: int | None = None
    matrices: int | None = None
    activations: dict[str, str] | None = None
    formats: dict[str, int] | None = None
    products: dict[str, str] | None = None


@dataclass(frozen=True)
class GraphInfo:
    """One ONNX file of the bundle.

    Attributes:
        file: the graph.
        data: its large constants.
        inputs: of the graph.
        outputs: of the graph.
        operators: how many of each type run.
        quantization: how its weights are stored.
        notes: on how it was made.
        packed: the file that says which of its constants are packed; None if none is.
    """

    file: str
    data: str | None
    inputs: list[TensorInfo]
    outputs: list[TensorInfo]
    operators: dict[str, int]
    quantization: Quantization
    notes: dict[str, str] = field(default_factory=dict)
    packed: str | None = None


@dataclass(frozen=True)
class LayerCacheInfo:
    """Geometry of one layer's key and value buffers: (batch, num_key_value_heads, capacity, head_dim)."""

    num_key_value_heads: int
    head_dim: int


@dataclass(frozen=True)
class StateInfo:
    """A state of fixed size that a layer carries along the text: (batch, *shape).

    Attributes:
        kind: "convolution" for the last inputs of a causal convolution, "recurrence" for a matrix that each token
            changes.
        dtype: float32.
        shape: of one row.
    """

    kind: Literal["convolution", "recurrence"]
    dtype: str
    shape: list[int]


@dataclass(frozen=True)
class CacheInfo:
    """What a decoder keeps of a text.

    Attributes:
        dtype: of the keys and values.
        layers: the key/value buffers, which grow with the text.
        states: the states of fixed size.
        growth: "in_place" if the graph writes new keys and values into the buffers that it reads, at the end of each
            row; "concatenated" if it takes those of the tokens so far, and gives them with the new ones behind them.
        uneven: whether a concatenated cache may have rows of different lengths, with the shorter ones at its end.
        single: whether a graph with a concatenated cache takes one token of each row in a run, and no more.
    """

    dtype: str
    layers: list[LayerCacheInfo]
    states: list[StateInfo] = field(default_factory=list)
    growth: CacheGrowth = "in_place"
    uneven: bool = True
    single: bool = False


@dataclass(frozen=True)
class Tokens:
    """Special token ids. `eos` may list several; any of them ends a generation."""

    bos: int | None
    eos: list[int]
    pad: int | None
    mask: int | None = None


@dataclass(frozen=True)
class EmbeddingInfo:
    """The output ``sentence_embedding``, or ``image_embedding`` for images.

    Attributes:
        dimension: of the vector.
        pooling: how tokens become one vector, in sentence-transformers' terms: mean, cls, max, lasttoken, ….
        normalized: whether its length is 1.
        prompts: texts to put before an input, by name, such as "query".
        default_prompt: the name of the prompt to use when none is named.
        include_prompt: whether a prompt's tokens count in the vector. If not, the graph takes their number, for each
            row, as ``prompt_lengths``: the tokens of the prompt by itself, without a special token at its end.
    """

    dimension: int
    pooling: str
    normalized: bool
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    include_prompt: bool = True


@dataclass(frozen=True)
class ContrastInfo:
    """How images and texts are compared: scores of ``scale * (image_embedding · sentence_embedding) + bias``.

    Attributes:
        scale: see above.
        bias: see above.
        scores: how an image's scores become probabilities: softmax over the texts, or sigmoid of each.
        text_length: tokens that every text is padded to, without masking the padding; None if padding is masked.
    """

    scale: float
    bias: float
    scores: Literal["softmax", "sigmoid"]
    text_length: int | None = None


@dataclass(frozen=True)
class EncoderInfo:
    """What an encoder's outputs mean.

    Attributes:
        embedding: of ``sentence_embedding`` or ``image_embedding``; None if there is none.
        labels: the name of each column of ``logits``, for classification and tagging.
        problem_type: of a classification: single_label_classification, multi_label_classification or regression.
        relevance: of a classification with one label, the function that turns its logit into a document's relevance to
            a query: identity, sigmoid or tanh; None means sigmoid.
        hidden_states: number of outputs ``hidden_states.{i}``.
        image: None if the model does not read images.
        contrast: of a model that compares images with texts; its graph ``image`` reads the images.
        equal_lengths: whether all rows of a run must have the same number of tokens, because padding would change the
            results; the graph takes no attention_mask.
        min_length: the fewest tokens in a row; of audio, the fewest samples or frames of features.
        audio: None if the model does not read audio.
        ctc: of a model that writes what it hears, how its ``logits`` become text.
        boxes: of a model that reads where each word stands on its page; None for all others.
        context_first: of question answering, whether the text comes before the question in a row.
    """

    embedding: EmbeddingInfo | None = None
    labels: list[str] = field(default_factory=list)
    problem_type: ProblemType | None = None
    relevance: Relevance | None = None
    hidden_states: int = 0
    image: ImageInfo | None = None
    contrast: ContrastInfo | None = None
    equal_lengths: bool = False
    min_length: int = 1
    audio: AudioInfo | None = None
    ctc: CtcInfo | None = None
    boxes: BoxesInfo | None = None
    context_first: bool = False


@dataclass(frozen=True)
class EncoderDecoderInfo:
    """What an encoder-decoder reads, and how decoding starts.

    Attributes:
        source: text, audio or image.
        decoder_start: the token that decoding starts with.
        max_source_length: the most tokens in a source text; None without a limit, or for audio and images.
        text: how source texts are tokenized and, for every kind of source, how generated tokens become text.
        tasks: of a multi-task model, by name.
        audio: how audio is read.
        image: how images are read.
        speech: None for a model without timestamps and language tokens.
    """

    source: SourceKind
    decoder_start: int
    max_source_length: int | None = None
    text: SourceTextInfo = field(default_factory=SourceTextInfo)
    tasks: dict[str, TaskPrefix] = field(default_factory=dict)
    audio: AudioInfo | None = None
    image: ImageInfo | None = None
    speech: SpeechInfo | None = None


@dataclass(frozen=True)
class FileInfo:
    """Size in bytes and SHA-256 (hex) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class GpuGraphs:
    """Graphs for GPUs, in a bundle that has graphs for the CPU too.

    Attributes:
        dtype: of activations, keys and values.
        graphs: by the names of `Manifest.graphs`.
        parity: these graphs compared with the float32 graphs.
    """

    dtype: GpuDtype
    graphs: dict[str, GraphInfo]
    parity: Parity | EncoderParity | None = None


@dataclass(frozen=True)
class Manifest:
    """A bundle's manifest. See docs/bundle.md.

    A model that neither reads nor writes text has no tokenizer, and 0 for `max_length` and `vocab_size`.

    Attributes:
        target: what `graphs` are made for.
        gpu: the same graphs for GPUs, beside those for the CPU; see `targets.py`.
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
    encoder_decoder: EncoderDecoderInfo | None
    target: BundleTarget = "cpu"
    gpu: GpuGraphs | None = None

    def to_json(self) -> str:
        """The text of manifest.json."""
        return sealed(dataclasses.asdict(self), CHECKSUM)
