"""What is to be done with a text: one of a model's tasks, a prefix, languages."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from triform.runtime.bundle.limits.encoder_decoder import task_defaults
from triform.runtime.bundle.manifest import EncoderDecoderInfo, Manifest
from triform.runtime.bundle.text_info import TaskPrefix
from triform.runtime.errors import InputError, option

# transformers' names of tasks, in a config's task_specific_params.
_TRANSLATION = re.compile(r"translation_(\w+)_to_(\w+)")
_SUMMARY = "summarization"


@dataclass(frozen=True)
class Ask:
    """What is to be done with a text.

    Attributes:
        task: one of the model's, by name: its prefix is put before the text, and its settings are the defaults.
        prefix: put before the text instead.
        source_lang: what the text is in, as the model or a person calls it; the model's default when None.
        target_lang: what to write in; the model's default when None.
    """

    task: str | None = None
    prefix: str | None = None
    source_lang: str | None = None
    target_lang: str | None = None


def prefix_for(info: EncoderDecoderInfo, ask: Ask) -> str:
    """What is put before each text.

    Raises:
        InputError: the model has no such task.
    """
    if ask.prefix is not None:
        return ask.prefix
    return _task(info, ask.task).prefix if ask.task is not None else ""


def manifest_for(manifest: Manifest, ask: Ask) -> Manifest:
    """A manifest whose generation defaults are the task's, and the model's where the task says nothing.

    Raises:
        InputError: the model has no such task.
    """
    if ask.task is None or manifest.encoder_decoder is None:
        return manifest
    _task(manifest.encoder_decoder, ask.task)
    return dataclasses.replace(manifest, generation=task_defaults(manifest, ask.task))


def translation_ask(info: EncoderDecoderInfo, source_lang: str | None = None, target_lang: str | None = None) -> Ask:
    """How a translation is asked for: by one of the model's tasks that are translations, else by the languages alone.

    Args:
        info: what the model reads.
        source_lang: what the texts are in, if it was said.
        target_lang: what to translate into, if it was said.

    Raises:
        InputError: no translation of the model's fits, several do, or it has tasks and none is a translation.
    """
    found = {name: match.groups() for name in info.tasks if (match := _TRANSLATION.fullmatch(name))}
    if not found:
        if info.tasks and info.text.languages is None:
            raise InputError(f"this model has no task that is a translation; it has: {', '.join(info.tasks)}")
        return Ask(source_lang=source_lang, target_lang=target_lang)
    asked = (source_lang, target_lang)
    fitting = [
        name
        for name, languages in found.items()
        if all(one is None or one.lower() == own.lower() for one, own in zip(asked, languages, strict=True))
    ]
    if len(fitting) == 1:
        return Ask(task=fitting[0])
    listed = ", ".join(f"{source} to {target}" for source, target in found.values())
    if fitting:
        source, target = option("source_lang"), option("target_lang")
        raise InputError(f"this model translates {listed}; choose with {source} and {target}")
    said = " to ".join(one or "any" for one in asked)
    raise InputError(f"this model does not translate {said}, but {listed}")


def summary_ask(info: EncoderDecoderInfo) -> Ask:
    """How a summary is asked for: by the model's task, or by nothing where it has no tasks at all.

    Raises:
        InputError: the model has other tasks only.
    """
    if _SUMMARY in info.tasks:
        return Ask(task=_SUMMARY)
    if info.tasks:
        raise InputError(f"this model has no task called {_SUMMARY!r}; it has: {', '.join(info.tasks)}")
    return Ask()


def spoken(ask: Ask) -> str | None:
    """What the texts are in, as an ISO 639 code, if it was said; of a task, what its name says."""
    match = _TRANSLATION.fullmatch(ask.task or "")
    name = match[1] if match else ask.source_lang
    return name.replace("-", "_").split("_")[0].lower() if name else None


def _task(info: EncoderDecoderInfo, name: str) -> TaskPrefix:
    if name not in info.tasks:
        raise InputError(f"this model has no task called {name!r}; it has: {', '.join(info.tasks) or 'none'}")
    return info.tasks[name]
