"""What the manifest says of the export: versions, and how close the bundle comes to PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, field


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
class NewerVersion:
    """A package that was newer than what the exporter had been tested with.

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
        text: as the vocabulary writes it.
        named_by: generation config, config, tokenizer or chat template; all that name it.
    """

    id: int
    text: str
    named_by: list[str]


@dataclass(frozen=True)
class ExportInfo:
    """How the bundle came to be.

    Attributes:
        versions: of the packages that take part in an export, by package.
        seconds: of each step.
        parity: of a decoder or an encoder-decoder.
        encoder_parity: of an encoder.
        newer_than_tested: those of `versions` that were newer than what the exporter had been tested with, by package.
        end_tokens: of a decoder: those of `Manifest.tokens.eos`.
        notes: what is otherwise than one would expect, a sentence each.
    """

    versions: dict[str, str]
    seconds: dict[str, float]
    parity: Parity | None = None
    encoder_parity: EncoderParity | None = None
    newer_than_tested: dict[str, NewerVersion] = field(default_factory=dict)
    end_tokens: list[EndToken] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
