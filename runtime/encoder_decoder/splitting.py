"""Splits long texts for a model that reads texts and writes about them, and refuses models that read something else."""

from __future__ import annotations

from triform.runtime.bundle.tasks import method_hint
from triform.runtime.encoder_decoder.ask import Ask, prefix_for, spoken
from triform.runtime.encoder_decoder.writer import SourceWriter
from triform.runtime.errors import UnsupportedError
from triform.runtime.text.documents import Splitter


def splitter_for(model: SourceWriter, ask: Ask, *, strict: bool) -> Splitter:
    """A splitter that splits texts into pieces that fit the model together with the prefix.

    Args:
        model: reads texts.
        ask: the task or prefix, and the languages.
        strict: whether to refuse a sentence that is too long, rather than split it.
    """
    prefix = prefix_for(model.info, ask)

    def length(text: str) -> int:
        return model.text.length(prefix + text, source_lang=ask.source_lang, target_lang=ask.target_lang)

    return Splitter(length, model.text.max_length, language=spoken(ask), strict=strict)


def check_reads_texts(model: SourceWriter) -> None:
    """Check that a model reads texts.

    Raises:
        UnsupportedError: it is for something else.
    """
    if model.info.source != "text":
        hint = method_hint(model.manifest.task, "upgrade, or export another model")
        raise UnsupportedError(f"{model.manifest.model_name} reads {model.info.source}, not texts: {hint}")
