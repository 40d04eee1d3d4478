"""What encoders do with the rows of a table: vectors, labels, and spans."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from triform.runtime.batch.opened import OpenTask, Values
from triform.runtime.errors import InputError, option, refuse_unused

if TYPE_CHECKING:
    from triform.runtime.opening import LoadOptions

# What a table has of each span: it holds no pages.
_SPAN = ("label", "score", "start", "end", "text")


@dataclass(frozen=True)
class EmbedTask:
    """Computes a vector for each text, as `Encoder.embed` does, in the column `embedding`.

    Attributes:
        prompt: see `Encoder.embed`.
        prompt_name: see `Encoder.embed`.
        dimensions: see `Encoder.embed`.
        output_dtype: see `quantize`.
        strict: whether a text that is too long for the model is refused, rather than cut.
    """

    prompt: str | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    output_dtype: str = "float32"
    strict: bool = False

    reads: ClassVar[Literal["text", "audio"]] = "text"
    rows: ClassVar[int] = 4096

    def settings(self) -> dict[str, object]:
        """The options that results depend on, by name."""
        return dict(vars(self))

    def open(self, bundle: str | Path, loading: LoadOptions) -> OpenTask:
        """Load the encoder; errors as `load_encoder` and `Encoder.embed`."""
        import pyarrow as pa

        from triform.runtime.encoder.vectors.embedding import embed, embedding_info, resolve_prompt, width_of
        from triform.runtime.encoder.vectors.quantization import check_dtype, quantize, storage
        from triform.runtime.opening import load_encoder

        check_dtype(self.output_dtype)
        model = load_encoder(bundle, strict=self.strict, **loading)
        info = embedding_info(model)
        model.require_texts_alone("a table")
        prompt = resolve_prompt(info, self.prompt, self.prompt_name)
        width, dtype = storage(width_of(info, self.dimensions), self.output_dtype)

        def work(texts: Iterable[str]) -> Iterator[Values]:
            for vector in embed(model, texts, prompt=prompt, dimensions=self.dimensions):
                yield {"embedding": quantize(vector, self.output_dtype)}

        columns = {"embedding": pa.list_(pa.type_for_alias(dtype), width)}
        return OpenTask(columns, work, truncated=lambda: model.reader().truncated)


@dataclass(frozen=True)
class ClassifyTask:
    """Scores labels for each text, as `Encoder.classify` and `Encoder.zero_shot` do, in the column `labels`.

    Attributes:
        top_k: the most labels to keep, the best first.
        labels: labels of one's own, for models trained on natural language inference; the model's own when empty.
        hypothesis_template: see `Encoder.zero_shot`.
        multi_label: see `Encoder.zero_shot`.
        strict: whether a text that is too long for the model is refused, rather than cut.
    """

    top_k: int = 1
    labels: tuple[str, ...] = ()
    hypothesis_template: str | None = None
    multi_label: bool = False
    strict: bool = False

    reads: ClassVar[Literal["text", "audio"]] = "text"
    rows: ClassVar[int] = 4096

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise InputError(f"{option('top_k')} must be at least 1, not {self.top_k}")
        if not self.labels:
            given = {"multi_label": self.multi_label, "hypothesis_template": self.hypothesis_template is not None}
            refuse_unused(f"needs {option('labels')}", **given)

    def settings(self) -> dict[str, object]:
        """The options that results depend on, by name."""
        return dict(vars(self))

    def open(self, bundle: str | Path, loading: LoadOptions) -> OpenTask:
        """Load the encoder; errors as `load_encoder` and `Encoder.classify`."""
        import pyarrow as pa

        from triform.runtime.encoder.classification import TASK, classify
        from triform.runtime.encoder.zero_shot import HYPOTHESIS_TEMPLATE, zero_shot
        from triform.runtime.opening import load_encoder

        model = load_encoder(bundle, strict=self.strict, **loading)
        model.require("classify", TASK)
        model.require_texts_alone("a table")
        template = HYPOTHESIS_TEMPLATE if self.hypothesis_template is None else self.hypothesis_template

        def scored(texts: Iterable[str]) -> Iterator[list[tuple[str, float]]]:
            if not self.labels:
                return classify(model, texts)
            return zero_shot(model, texts, self.labels, template=template, multi_label=self.multi_label)

        # Options that do not fit the model are refused here, not for each row.
        next(scored(["."]))

        def work(texts: Iterable[str]) -> Iterator[Values]:
            for labels in scored(texts):
                yield {"labels": [{"label": label, "score": score} for label, score in islice(labels, self.top_k)]}

        label = pa.struct([("label", pa.string()), ("score", pa.float64())])
        return OpenTask({"labels": pa.list_(label)}, work, truncated=lambda: model.reader().truncated)


@dataclass(frozen=True)
class TagTask:
    """Finds spans in each text, as `Encoder.tag` does, in the column `tags`.

    Attributes:
        aggregation: see `Encoder.tag`.
        stride: see `Encoder.tag`.
    """

    aggregation: str = "simple"
    stride: int | None = None

    reads: ClassVar[Literal["text", "audio"]] = "text"
    rows: ClassVar[int] = 1024

    def settings(self) -> dict[str, object]:
        """The options that results depend on, by name."""
        return dict(vars(self))

    def open(self, bundle: str | Path, loading: LoadOptions) -> OpenTask:
        """Load the encoder; errors as `load_encoder` and `Encoder.tag`."""
        import pyarrow as pa

        from triform.runtime.encoder.tagging import tag
        from triform.runtime.opening import load_encoder

        model = load_encoder(bundle, **loading)
        model.require_texts_alone("a table")
        # The call itself checks the options.
        tag(model, (), aggregation=self.aggregation, stride=self.stride)

        def work(texts: Iterable[str]) -> Iterator[Values]:
            for tags in tag(model, texts, aggregation=self.aggregation, stride=self.stride):
                yield {"tags": [{name: getattr(span, name) for name in _SPAN} for span in tags]}

        places = [("start", pa.int64()), ("end", pa.int64()), ("text", pa.string())]
        span = pa.struct([("label", pa.string()), ("score", pa.float64()), *places])
        return OpenTask({"tags": pa.list_(span)}, work)
