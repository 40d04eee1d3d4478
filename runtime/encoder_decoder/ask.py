"""Resolves the task, prefix and languages of a text-to-text request."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from triform.runtime.bundle.limits.encoder_decoder import task_defaults
from triform.runtime.bundle.manifest import EncoderDecoderInfo, Manifest
from triform.runtime.bundle.text_info import TaskPrefix
from triform.runtime.errors import InputError, option

# Task names of transformers, in a config's task_specific_params.
_TRANSLATION = re.compile(r"translation_(\w+)_to_(\w+)")
_SUMMARY = "summarization"


@dataclass(frozen=True)
class Ask:
    """The task and languages of a request.

    Attributes:
        task: the name of one of the model's tasks: its prefix is put before the text, and its settings are the
            defaults.
        prefix: put before the text instead of the task's.
        source_lang: language of the text, as the model's code or the first part of it; the model's default when None.
        target_lang: language to generate; the model's default when None.
    """

    task: str | None = None
    prefix: str | None = None
    source_lang: str | None = None
    target_lang: str | None = None


def prefix_for(info: EncoderDecoderInfo, ask: Ask) -> str:
    """Return the prefix to put before each text.

    Raises:
        InputError: the model has no such task.
    """
    if ask.prefix is not None:
        return ask.prefix
    return _task(info, ask.task).prefix if ask.task is not None else ""


def manifest_for(manifest: Manifest, ask: Ask) -> Manifest:
    """Return the manifest with the task's generation defaults in place of the model's.

    Raises:
        InputError: the model has no such task.
    """
    if ask.task is None or manifest.encoder_decoder is None:
        return manifest
    _task(manifest.encoder_decoder, ask.task)
    return dataclasses.replace(manifest, generation=task_defaults(manifest, ask.task))


def translation_ask(info: EncoderDecoderInfo, source_lang: str | None = None, target_lang: str | None = None) -> Ask:
    """Return the request for a translation: one of the model's translation tasks, or the languages alone.

    Args:
        info: of the model.
        source_lang: language of the texts; None if unspecified.
        target_lang: language to translate into; None if unspecified.

    Raises:
        InputError: none of the model's translation tasks fits, several do, or the model has only other tasks.
    """
    translations = {name: match.groups() for name in info.tasks if (match := _TRANSLATION.fullmatch(name))}
    if not translations:
        if info.tasks and info.text.languages is None:
            raise InputError(f"this model has no translation task; it has: {', '.join(info.tasks)}")
        return Ask(source_lang=source_lang, target_lang=target_lang)
    requested = (source_lang, target_lang)
    fitting = [
        name
        for name, languages in translations.items()
        if all(wish is None or wish.lower() == own.lower() for wish, own in zip(requested, languages, strict=True))
    ]
    if len(fitting) == 1:
        return Ask(task=fitting[0])
    listed = ", ".join(f"{source} to {target}" for source, target in translations.values())
    if fitting:
        source, target = option("source_lang"), option("target_lang")
        raise InputError(f"this model translates {listed}; choose with {source} and {target}")
    pair = " to ".join(language or "any" for language in requested)
    raise InputError(f"this model does not translate {pair}, but {listed}")


def summary_ask(info: EncoderDecoderInfo) -> Ask:
    """Return the request for a summary: the model's summarization task, or none if the model has no tasks.

    Raises:
        InputError: the model has only other tasks.
    """
    if _SUMMARY in info.tasks:
        return Ask(task=_SUMMARY)
    if info.tasks:
        raise InputError(f"this model has no task called {_SUMMARY!r}; it has: {', '.join(info.tasks)}")
    return Ask()


def spoken(ask: Ask) -> str | None:
    """Return the ISO 639 code of the source language, from the task's name or `source_lang`; None if unspecified."""
    match = _TRANSLATION.fullmatch(ask.task or "")
    name = match[1] if match else ask.source_lang
    return name.replace("-", "_").split("_")[0].lower() if name else None


def _task(info: EncoderDecoderInfo, name: str) -> TaskPrefix:
    if name not in info.tasks:
        raise InputError(f"this model has no task called {name!r}; it has: {', '.join(info.tasks) or 'none'}")
    return info.tasks[name]
