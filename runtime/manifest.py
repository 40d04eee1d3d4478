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
# What makes a score of the number a cross-encoder gives.
RELEVANCE = ("identity", "sigmoid", "tanh")
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
    """What the model's own generation config asks for, in its own names; None or empty where it says nothing."""

    do_sample: bool | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    epsilon_cutoff: float | None = None
    eta_cutoff: float | None = None
    repetition_penalty: float | None = None
    encoder_repetition_penalty: float | None = None
    no_repeat_ngram_size: int | None = None
    encoder_no_repeat_ngram_size: int | None = None
    exponential_decay_length_penalty: list[float] | None = None
    num_beams: int | None = None
    num_beam_groups: int | None = None
    diversity_penalty: float | None = None
    length_penalty: float | None = None
    early_stopping: bool | str | None = None
    min_new_tokens: int | None = None
    min_length: int | None = None
    max_new_tokens: int | None = None
    max_length: int | None = None
    forced_bos_token_id: int | None = None
    forced_eos_token_id: list[int] = field(default_factory=list)
    suppress_tokens: list[int] = field(default_factory=list)
    begin_suppress_tokens: list[int] = field(default_factory=list)
    bad_words_ids: list[list[int]] = field(default_factory=list)
    stop_strings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class CodePointsInfo:
    """A tokenizer whose ids are the code points of characters.

    Attributes:
        first: the token before a text.
        separator: the token behind each text.
        special: tokens that are no text.
        strip_before: tokens that swallow the spaces before them.
        second_type: the token type of the second text of a pair.
    """

    first: int
    separator: int
    special: list[int]
    strip_before: list[int] = field(default_factory=list)
    second_type: int = 0


@dataclass(frozen=True)
class TokenizerInfo:
    """Files and special strings of the tokenizer.

    Attributes:
        file: for the tokenizers library; None where `code_points` says it all.
        chat_template: a file, or None.
        special: strings a template may use, by name.
        code_points: of a model that reads characters and has no vocabulary.
    """

    file: str | None
    chat_template: str | None
    special: dict[str, str]
    code_points: CodePointsInfo | None = None


@dataclass(frozen=True)
class SourceLanguage:
    """What is put around the token ids of a text in one language."""

    prefix: list[int] = field(default_factory=list)
    suffix: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class TargetLanguage:
    """How one language is asked for.

    Attributes:
        asked: ids put before the source text, in front of what its own language puts there.
        forced: ids the target begins with, after the token that decoding starts with.
    """

    asked: list[int] = field(default_factory=list)
    forced: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class LanguagesInfo:
    """The languages of a translating model, by the model's own codes ("de_DE", "deu_Latn", "de", "deu").

    Attributes:
        sources: languages a text can be in; empty where the model does not ask.
        targets: languages a text can be translated into; empty where there is no choice.
        default_source: what a text is in when nothing is said.
        default_target: what it is translated into when nothing is said.
        plain: what is put around a text where the model does not ask for its language.
    """

    sources: dict[str, SourceLanguage] = field(default_factory=dict)
    targets: dict[str, TargetLanguage] = field(default_factory=dict)
    default_source: str | None = None
    default_target: str | None = None
    plain: SourceLanguage = field(default_factory=SourceLanguage)


@dataclass(frozen=True)
class TaskPrefix:
    """What a model of many tasks does on one of them.

    Attributes:
        prefix: text put before a source text, such as "summarize: ".
        generation: what the model's config asks of `generate` for this task, by transformers' names.
    """

    prefix: str
    generation: dict[str, bool | int | float | str] = field(default_factory=dict)


@dataclass(frozen=True)
class MosesInfo:
    """Words as Moses' scripts cut and join them, in the package sacremoses; tokenizer.json reads and writes words.

    Attributes:
        source: the language of the texts that are read, as the package calls it.
        target: the language of what is written.
        lowercase: whether texts are read in lower case.
        replaced: what is replaced in a text after its words are joined, in this order.
    """

    source: str
    target: str
    lowercase: bool = False
    replaced: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SourceTextInfo:
    """How a text becomes an encoder's token ids, and the decoder's a text, besides what tokenizer.json says.

    Attributes:
        target_file: the tokenizer that decodes, where it is not tokenizer.json.
        languages: None for a model without languages.
        unknown: the id of what the vocabulary lacks, where tokenizer.json may give more ids than the vocabulary has:
            those from `vocabulary` on stand for it. None where it does not.
        vocabulary: see there.
        composed: whether letters and the marks behind them become one character before tokenizer.json sees them.
        moses: how texts become words and words a text; None where tokenizer.json reads and writes texts.
    """

    target_file: str | None = None
    languages: LanguagesInfo | None = None
    unknown: int | None = None
    vocabulary: int | None = None
    composed: bool = False
    moses: MosesInfo | None = None


@dataclass(frozen=True)
class EmbeddingInfo:
    """What the output ``sentence_embedding``, of a picture ``image_embedding``, is.

    Attributes:
        dimension: its width.
        pooling: how tokens became one vector, in sentence-transformers' terms: mean, cls, max, lasttoken, ….
        normalized: whether its length is 1.
        prompts: texts to put before an input, by name, such as "query".
        default_prompt: the name of the one to use when none is named.
        include_prompt: whether a prompt's tokens count in the vector. If not, the graph takes how many they are, for
            each row, as ``prompt_lengths``: the prompt's tokens when it stands alone, without a special one at its end.
    """

    dimension: int
    pooling: str
    normalized: bool
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    include_prompt: bool = True


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
class AudioInfo:
    """How sound becomes a model's input.

    Attributes:
        kind: ``log_mel``, Whisper's spectrogram; ``fbank``, Kaldi's; or ``waveform``, the samples themselves.
        sampling_rate: of the samples, in Hz.
        feature_size: mel bands; 1 of a waveform.
        padding_value: what samples (log_mel, waveform) or features (fbank) are padded with.
        chunk_length: seconds that the model reads at once, shorter sound being padded; None where it reads any length.
        win_length: samples of a frame; 0 of a waveform, as the next two.
        n_fft: points of a frame's Fourier transform.
        hop_length: samples from one frame to the next.
        normalize_means: whether each band of an utterance, or the waveform, is shifted to mean 0.
        normalize_vars: whether it is then scaled to variance 1. A waveform has both or neither.
    """

    kind: str
    sampling_rate: int
    feature_size: int
    padding_value: float
    chunk_length: int | None = None
    win_length: int = 0
    n_fft: int = 0
    hop_length: int = 0
    normalize_means: bool = False
    normalize_vars: bool = False


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
        relevance: of a classification with one label, how its number becomes the score of a document that answers a
            query: identity, sigmoid or tanh; None is sigmoid.
        hidden_states: how many outputs ``hidden_states.{i}`` there are.
        image: None when the model sees no pictures.
        contrast: of a model that compares pictures with texts: the graph ``image`` sees the pictures then.
        equal_lengths: rows of one run must have the same number of tokens, because padding would change what the model
            says; its graph takes no attention_mask.
        min_length: fewest tokens of a row.
    """

    embedding: EmbeddingInfo | None = None
    labels: list[str] = field(default_factory=list)
    problem_type: str | None = None
    relevance: str | None = None
    hidden_states: int = 0
    image: ImageInfo | None = None
    contrast: ContrastInfo | None = None
    equal_lengths: bool = False
    min_length: int = 1


@dataclass(frozen=True)
class SpeechInfo:
    """The tokens by which a speech model is told what to write, and tells when things were said (Whisper).

    Attributes:
        timestamp_begin: the token of 0.00 seconds; each next one stands for 0.02 seconds more.
        no_timestamps: asks for text without times.
        languages: the token of each language, by its code; empty for a model of English only.
        transcribe: asks for the language that is spoken; None for a model of English only.
        translate: asks for English.
        no_speech: likely where nobody speaks.
        previous: comes before text of the window before.
        max_initial_timestamp_index: the latest a window's first timestamp may be, in steps of 0.02 seconds.
        alignment_heads: [layer, head] of cross-attentions that follow the sound.
    """

    timestamp_begin: int
    no_timestamps: int
    languages: dict[str, int] = field(default_factory=dict)
    transcribe: int | None = None
    translate: int | None = None
    no_speech: int | None = None
    previous: int | None = None
    max_initial_timestamp_index: int | None = None
    alignment_heads: list[list[int]] = field(default_factory=list)


@dataclass(frozen=True)
class EncoderDecoderInfo:
    """What an encoder-decoder reads, and how what it writes begins.

    Attributes:
        source: text, audio or image.
        decoder_start: the token that decoding starts with.
        max_source_length: tokens of a source text; None where any length will do, or for sound and pictures.
        text: how texts are read; how what is written becomes text, for every source.
        tasks: of a model of many, by name.
        audio: how sound is read.
        image: how pictures are read.
        speech: None for a model whose tokens say nothing of time and language.
    """

    source: str
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
        rows: compared.
        cosine_mean: of the two graphs' vectors, over rows; None where there are scores.
        cosine_worst: the same, of the row that suffers most.
        score_mean: largest difference of a row's scores, which are probabilities or a regression's numbers; the mean
            over rows. None where there are vectors.
        score_worst: the same, of the row that suffers most.
    """

    rows: int
    cosine_mean: float | None = None
    cosine_worst: float | None = None
    score_mean: float | None = None
    score_worst: float | None = None


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
    encoder_decoder: EncoderDecoderInfo | None

    def to_json(self) -> str:
        """The text of manifest.json."""
        return json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False) + "\n"
