"""Chooses what to measure by a bundle's task and a file's columns."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from triform.cli.inputs.formats import file_format
from triform.cli.inputs.labelled import LabelledFile, as_number, as_spans, as_text
from triform.runtime.errors import InputError, UnsupportedError, refuse_unused

if TYPE_CHECKING:
    from triform.runtime.decoder.model import Decoder
    from triform.runtime.encoder.model import Encoder
    from triform.runtime.encoder_decoder.model import EncoderDecoder
    from triform.runtime.evaluation.measurement import Measurement
    from triform.runtime.opening import LoadOptions
    from triform.runtime.speech.model import CtcModel, SpeechModel

_SOURCE, _TARGET = ("source", "text", "prompt"), ("target", "reference", "summary")
_FIRST, _SECOND = ("text1", "sentence1", "query"), ("text2", "sentence2", "document")


@dataclass(frozen=True)
class Settings:
    """Options of `evaluate` that only some tasks take."""

    window: int | None = None
    language: str | None = None
    exact: bool = False
    source_lang: str | None = None
    target_lang: str | None = None
    max_new_tokens: int | None = None
    batch: int = 8

    def allow(self, *names: str) -> None:
        """Check that only these were given.

        Raises:
            InputError: another one was.
        """
        others = {field.name: field.default for field in fields(self) if field.name not in names}
        given = {name: getattr(self, name) != default for name, default in others.items()}
        refuse_unused("does not apply to this task and file", **given)


def measure_bundle(folder: Path, file: Path, settings: Settings, loading: LoadOptions) -> Measurement:
    """Load a bundle and measure it.

    Raises:
        InputError: the file lacks what the task needs, or an option does not fit the task.
        UnsupportedError: nothing can be measured for the bundle's task.
    """
    from triform.runtime.decoder.model import Decoder
    from triform.runtime.encoder.model import Encoder
    from triform.runtime.opening import load
    from triform.runtime.speech.model import CtcModel, SpeechModel

    if not file.is_file():
        raise InputError(f"{file} cannot be read: it is not a file")
    model = load(folder, **loading)
    if isinstance(model, Decoder):
        if file_format(file, None) == "lines":
            settings.allow("window")
            return _perplexity(model, file, settings)
        needs = "a decoder needs the columns source and target, or a text file"
        return _answers(model, LabelledFile(file, needs), settings)
    if isinstance(model, SpeechModel | CtcModel):
        settings.allow("language", "exact")
        return _speech(model, LabelledFile(file, "speech needs the columns audio and text"), settings)
    if isinstance(model, Encoder):
        settings.allow()
        return _encoder(model, file)
    return _texts_to_texts(model, file, settings)


def _perplexity(model: Decoder, file: Path, settings: Settings) -> Measurement:
    from triform.runtime.evaluation.texts import evaluate_text
    from triform.runtime.text.encoding import decode_text

    try:
        content = file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None
    return evaluate_text(model, decode_text(content, str(file)), settings.window)


def _answers(model: Decoder, rows: LabelledFile, settings: Settings) -> Measurement:
    from triform.runtime.evaluation.generated import evaluate_generation
    from triform.runtime.generation.options.generation import GenerationOptions

    settings.allow("max_new_tokens", "batch")
    sources, targets = _sources_and_targets(rows)
    options = GenerationOptions(max_new_tokens=settings.max_new_tokens, temperature=0)
    answers = [best[0].text for best in model.generate_all(sources, options, batch=settings.batch)]
    return evaluate_generation(answers, targets)


def _texts_to_texts(model: EncoderDecoder, file: Path, settings: Settings) -> Measurement:
    from triform.runtime.encoder_decoder.ask import summary_ask, translation_ask
    from triform.runtime.evaluation.generated import evaluate_generation
    from triform.runtime.generation.options.generation import GenerationOptions

    if model.info.source != "text":
        raise UnsupportedError(f"`evaluate` does not support {model.manifest.task}")
    rows = LabelledFile(file, "this task needs the columns source and target")
    summarizes = rows.has(("summary",))
    settings.allow("max_new_tokens", "batch", *(() if summarizes else ("source_lang", "target_lang")))
    sources, targets = _sources_and_targets(rows)
    languages = settings.source_lang, settings.target_lang
    ask = summary_ask(model.info) if summarizes else translation_ask(model.info, *languages)
    options = GenerationOptions(max_new_tokens=settings.max_new_tokens)
    answers = [best[0].text for best in model.generate_all(sources, options, ask=ask, batch=settings.batch)]
    return evaluate_generation(answers, targets)


def _sources_and_targets(rows: LabelledFile) -> tuple[list[str], list[str]]:
    return rows.column(_SOURCE, as_text), rows.column(_TARGET, as_text)


def _speech(model: SpeechModel | CtcModel, rows: LabelledFile, settings: Settings) -> Measurement:
    from triform.runtime.evaluation.speech import evaluate_speech
    from triform.runtime.speech.options import TranscribeOptions

    # Relative to the file, so that a folder of recordings can be moved.
    recordings = [str(rows.path.parent / name) for name in rows.column(("audio",), as_text)]
    transcripts = rows.column(("text",), as_text)
    options = TranscribeOptions(language=settings.language, seed=0)
    return evaluate_speech(model, recordings, transcripts, options, exact=settings.exact)


def _encoder(model: Encoder, file: Path) -> Measurement:
    from triform.runtime.evaluation.labels import evaluate_spans
    from triform.runtime.evaluation.pairs import evaluate_similarity

    task = model.manifest.task
    if task == "feature-extraction":
        measured = evaluate_similarity(model, *_scored_pairs(file))
    elif task == "token-classification":
        rows = LabelledFile(file, "this task needs the columns text and entities")
        measured = evaluate_spans(model, rows.column(("text",), as_text), rows.column(("entities",), as_spans))
    elif task == "text-classification":
        measured = _classifier(model, file)
    else:
        raise UnsupportedError(f"`evaluate` does not support {task}")
    cut = model.reader().truncated
    return replace(measured, details={**measured.details, "truncated texts": cut}) if cut else measured


def _classifier(model: Encoder, file: Path) -> Measurement:
    from triform.runtime.evaluation.labels import evaluate_labels
    from triform.runtime.evaluation.pairs import evaluate_relevance

    if len(model.info.labels) == 1:
        return evaluate_relevance(model, *_scored_pairs(file))
    rows = LabelledFile(file, "this task needs the columns text and label, or text1, text2 and label")
    texts = rows.column(("text",), as_text) if rows.has(("text",)) else _pairs(rows)
    return evaluate_labels(model, texts, rows.column(("label",), as_text))


def _scored_pairs(file: Path) -> tuple[list[tuple[str, str]], list[float]]:
    rows = LabelledFile(file, "this task needs the columns text1, text2 and score, or query, document and score")
    return _pairs(rows), rows.column(("score",), as_number)


def _pairs(rows: LabelledFile) -> list[tuple[str, str]]:
    return list(zip(rows.column(_FIRST, as_text), rows.column(_SECOND, as_text), strict=True))
