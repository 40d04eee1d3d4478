"""The manifest's record of the export: versions, and how close the bundle's outputs are to PyTorch's."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class QuantizedParity:
    """The quantized graph compared with the float one, on the text shipped with the exporter.

    Attributes:
        top1_agreement: share of positions where both have the same most likely token.
        mean_kl: mean Kullback-Leibler divergence of the quantized prediction from the float one, in nats.
        perplexity_original: of the float graph.
        perplexity_quantized: of the quantized graph.
        tokens: positions compared.
        word_errors: of a speech model that was exported to a largest loss, words to insert, delete or replace so that
            the quantized graph's transcripts become those of the other, per word of these. None if it was not measured.
        words: of the other's transcripts.
    """

    top1_agreement: float
    mean_kl: float
    perplexity_original: float
    perplexity_quantized: float
    tokens: int
    word_errors: float | None = None
    words: int | None = None


@dataclass(frozen=True)
class Parity:
    """The float graph compared with PyTorch: largest absolute logit differences.

    Attributes:
        prefill: all tokens in one run.
        chunked: the same tokens in several runs.
        step: the last tokens one at a time.
        ragged: two rows of different lengths in one batch.
        scale: largest absolute logit, for comparison.
        tolerance: the largest difference allowed.
        quantized: the quantized graph compared with the float one; None for a float bundle.
        prompts: the graph that reads long prompts compared with the float one; None if there is none.
    """

    prefill: float
    chunked: float
    step: float
    ragged: float
    scale: float
    tolerance: float
    quantized: QuantizedParity | None = None
    prompts: QuantizedParity | None = None


@dataclass(frozen=True)
class QuantizedEncoderParity:
    """The quantized graph compared with the float one, on the text or images shipped with the exporter.

    Attributes:
        rows: number of rows compared.
        cosine_mean: cosine between the two graphs' vectors, the mean over rows; None if the model computes scores.
        cosine_worst: the same, for the worst row.
        score_mean: largest difference between a row's scores (probabilities, or the numbers of a regression), the mean
            over rows. None if the model computes vectors.
        score_worst: the same, for the worst row.
        token_errors: tokens to insert, delete or replace so that the quantized graph's transcripts become those of the
            other, per token of these. None if the model does not write.
    """

    rows: int
    cosine_mean: float | None = None
    cosine_worst: float | None = None
    score_mean: float | None = None
    score_worst: float | None = None
    token_errors: float | None = None


@dataclass(frozen=True)
class EncoderParity:
    """The float graph compared with PyTorch: largest absolute differences over all outputs, except at padding.

    Attributes:
        batch: rows of different lengths, padded, in one run.
        single: each row in a run of its own.
        scale: largest absolute output, for comparison.
        tolerance: the largest difference allowed.
        quantized: the quantized graph compared with the float one; None for a float bundle.
    """

    batch: float
    single: float
    scale: float
    tolerance: float
    quantized: QuantizedEncoderParity | None = None


@dataclass(frozen=True)
class NewerVersion:
    """A package that was newer than the version that the exporter had been tested with.

    Attributes:
        installed: the version that was installed.
        tested: the version that the exporter had been tested with.
    """

    installed: str
    tested: str


@dataclass(frozen=True)
class EndToken:
    """A token that ends an answer.

    Attributes:
        id: of the token.
        text: its entry in the vocabulary.
        named_by: all that name it: generation config, config, tokenizer, chat template.
    """

    id: int
    text: str
    named_by: list[str]


@dataclass(frozen=True)
class Origin:
    """Where the checkpoint was published.

    Attributes:
        repository: on the hub, such as org/name; None if unknown.
        revision: its commit; None if unknown.
        license: as the model's card names it, usually an identifier of SPDX; None if unknown.
    """

    repository: str | None = None
    revision: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class ExportInfo:
    """How the bundle was made.

    Attributes:
        versions: of the packages used in the export, by package.
        seconds: duration of each step.
        parity: of a decoder or an encoder-decoder.
        encoder_parity: of an encoder.
        newer_than_tested: those of `versions` that were newer than what the exporter had been tested with, by package.
        end_tokens: of a decoder: those of `Manifest.tokens.eos`.
        notes: on anything unexpected, a sentence each.
        origin: of the checkpoint; None if unknown.
    """

    versions: dict[str, str]
    seconds: dict[str, float]
    parity: Parity | None = None
    encoder_parity: EncoderParity | None = None
    newer_than_tested: dict[str, NewerVersion] = field(default_factory=dict)
    end_tokens: list[EndToken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    origin: Origin | None = None
