"""What models that read and write texts do with the rows of a table: translations, summaries, and rewritten texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from triform.runtime.batch.opened import OpenTask, Values
from triform.runtime.batch.writer_tasks import seed_for
from triform.runtime.encoder_decoder.ask import Ask, summary_ask, translation_ask
from triform.runtime.encoder_decoder.splitting import check_reads_texts, splitter_for
from triform.runtime.errors import InputError, option
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions, values_by_name
from triform.runtime.text.documents import Line, in_pieces, put_together, summaries

if TYPE_CHECKING:
    import pyarrow as pa

    from triform.runtime.encoder_decoder.model import EncoderDecoder
    from triform.runtime.generation.answers import Completion
    from triform.runtime.opening import LoadOptions


@dataclass(frozen=True)
class Writing:
    """How a model writes about texts.

    Attributes:
        ask: the task or prefix, and the languages.
        options: see `GenerationOptions`.
        beams: see `Beams`; the best answer only is kept.
        batch: texts to run at once.
        strict: whether a text, or a sentence of it, that is too long for the model is refused.
    """

    ask: Ask = field(default_factory=Ask)
    options: GenerationOptions = field(default_factory=GenerationOptions)
    beams: Beams = field(default_factory=Beams)
    batch: int = 8
    strict: bool = False

    def __post_init__(self) -> None:
        if (self.beams.num_return_sequences or 1) > 1:
            raise InputError(f"{option('num_return_sequences')} is not for tables: each row keeps one answer")

    def settings(self) -> dict[str, object]:
        """The options that results depend on, by name."""
        return values_by_name(self.options) | vars(self.beams) | vars(self.ask) | {"strict": self.strict}

    def load(self, bundle: str | Path, loading: LoadOptions) -> EncoderDecoder:
        """Load the model; errors as `load_encoder_decoder`."""
        from triform.runtime.opening import load_encoder_decoder

        model = load_encoder_decoder(bundle, strict=self.strict, **loading)
        check_reads_texts(model)
        return model

    def worker(
        self, model: EncoderDecoder, ask: Ask, texts: list[str]
    ) -> Callable[[Iterable[str]], Iterator[list[Completion]]]:
        """What answers pieces of these texts, lazily."""
        options = replace(self.options, seed=seed_for(self.options.seed, texts))

        def work(pieces: Iterable[str]) -> Iterator[list[Completion]]:
            return model.generate_all(pieces, options, ask=ask, beams=self.beams, batch=self.batch)

        return work


@dataclass(frozen=True)
class _WritingTask:
    """What the tasks below have in common."""

    writing: Writing = field(default_factory=Writing)

    reads: ClassVar[Literal["text", "audio"]] = "text"
    rows: ClassVar[int] = 64

    def settings(self) -> dict[str, object]:
        """The options that results depend on, by name."""
        return self.writing.settings()


@dataclass(frozen=True)
class TranslateTask(_WritingTask):
    """Translates each text, as `triform translate` does, in the columns `translation_text` and `finish_reason`.

    Attributes:
        writing: how; its `ask` names the languages, or a task or prefix.
    """

    def open(self, bundle: str | Path, loading: LoadOptions) -> OpenTask:
        """Load the model; errors as `load_encoder_decoder` and `translation_ask`."""
        model, ask = self.writing.load(bundle, loading), self.writing.ask
        if ask.task is None and ask.prefix is None:
            ask = translation_ask(model.info, ask.source_lang, ask.target_lang)
        splitter = splitter_for(model, ask, strict=self.writing.strict)
        return _line_by_line(self.writing, model, ask, splitter.lines, "translation_text")


@dataclass(frozen=True)
class RewriteTask(_WritingTask):
    """Gives each text to a model as it is, as `triform rewrite` does, in `generated_text` and `finish_reason`.

    Attributes:
        writing: how.
    """

    def open(self, bundle: str | Path, loading: LoadOptions) -> OpenTask:
        """Load the model; errors as `load_encoder_decoder`."""
        model = self.writing.load(bundle, loading)
        return _line_by_line(self.writing, model, self.writing.ask, _whole, "generated_text")


@dataclass(frozen=True)
class SummarizeTask(_WritingTask):
    """Sums up each text, of any length, as `triform summarize` does, in `summary_text` and `finish_reason`.

    Attributes:
        writing: how.
    """

    def open(self, bundle: str | Path, loading: LoadOptions) -> OpenTask:
        """Load the model; errors as `load_encoder_decoder` and `summary_ask`."""
        model, ask = self.writing.load(bundle, loading), self.writing.ask
        if ask.task is None and ask.prefix is None:
            ask = summary_ask(model.info)
        splitter = splitter_for(model, ask, strict=self.writing.strict)
        settled = model.settle(self.writing.options, ask=ask, beams=self.writing.beams)
        most = settled.row([model.info.decoder_start]).limit

        def work(texts: Iterable[str]) -> Iterator[Values]:
            texts = list(texts)
            answers = self.writing.worker(model, ask, texts)
            for parts in summaries(texts, splitter, most, answers, lambda part: part[0].text):
                yield _values("summary_text", [Line("", [""] * len(parts), "")], parts)

        return OpenTask(_columns("summary_text"), work, truncated=lambda: model.text.truncated)


def _line_by_line(
    writing: Writing, model: EncoderDecoder, ask: Ask, cut: Callable[[str, int], list[Line]], name: str
) -> OpenTask:
    """Answers to the pieces of each line, put together to a text of as many lines."""
    # Options that the model does not have are refused here, not for each row.
    model.settle(writing.options, ask=ask, beams=writing.beams)

    def work(texts: Iterable[str]) -> Iterator[Values]:
        texts = list(texts)
        for lines, parts in in_pieces(texts, cut, writing.worker(model, ask, texts)):
            yield _values(name, lines, parts)

    return OpenTask(_columns(name), work, truncated=lambda: model.text.truncated)


def _whole(text: str, number: int) -> list[Line]:
    return [Line("", [text], "")]


def _values(name: str, lines: list[Line], parts: list[list[Completion]]) -> Values:
    ended = all(part[0].finish_reason == "stop" for part in parts)
    text = put_together(lines, [part[0].text for part in parts])
    return {name: text, "finish_reason": "stop" if ended else "length"}


def _columns(name: str) -> dict[str, pa.DataType]:
    import pyarrow as pa

    return {name: pa.string(), "finish_reason": pa.string()}
