"""Decides a checkpoint's task and form.

The first of these decides: the user, modules.json, the adapter's task, the heads whose weights are there, the class
name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import transformers
from transformers import PretrainedConfig

from triform.export.checkpoint.accounting import Match, match, parts_lacked, without_weights
from triform.export.checkpoint.adapter import adapter_task
from triform.export.checkpoint.files.json_files import content_of
from triform.export.checkpoint.files.weights import tensor_names
from triform.export.checkpoint.sentence.sentence_transformers import sentence_task
from triform.export.checkpoint.source import Source
from triform.models import catalog
from triform.models.encoder.image_tasks import VECTORS
from triform.models.encoder.static import StaticConfig
from triform.models.encoder.tasks import HEADS
from triform.models.errors import UnsupportedModelError
from triform.runtime.errors import InputError, UnsupportedError

# The task that has no head.
_VECTORS = "feature-extraction"
# Classes whose heads were of use only while they were trained, and bare models.
_PRETRAINED = ("ForPreTraining", "Model")
_SEVERAL_HEADS = ("ForPreTraining", "DoubleHeadsModel")
# The part of a model that no output of that task depends on.
UNUSED = {_VECTORS: ("pooler",)}


@dataclass(frozen=True)
class Purpose:
    """What a checkpoint is exported for.

    Attributes:
        form: decoder, encoder, encoder-decoder, image or static.
        task: by its name on the hub.
        because: what decided the task, in words.
    """

    form: str
    task: str
    because: str


def decide_purpose(source: Source, config: PretrainedConfig, requested: str | None) -> Purpose:
    """Decide the task and form that a checkpoint is exported for.

    Args:
        source: from `find_checkpoint`.
        config: from `read_config`.
        requested: the task that the user names, if any.

    Raises:
        ExportError: modules.json or the weights cannot be read, or modules.json has a module that is not supported.
        InputError: the user names a task that is not for static embeddings.
        UnsupportedError: the task, or the model type for it, is not supported.
    """
    try:
        if isinstance(config, StaticConfig):
            return _static(requested)
        task, because = _task(source, config, requested)
        return Purpose(catalog.form_of(config, task), task, because)
    except UnsupportedModelError as error:
        raise UnsupportedError(str(error)) from error


def _static(requested: str | None) -> Purpose:
    if requested is not None and catalog.task_called(requested) != _VECTORS:
        raise InputError(f"--task {requested} is not for static embeddings, which are for {_VECTORS}")
    return Purpose("static", _VECTORS, "it is a table of vectors")


def _task(source: Source, config: PretrainedConfig, requested: str | None) -> tuple[str, str]:
    if requested is not None:
        return catalog.task_called(requested), "--task"
    modules = sentence_task(source.path)
    if modules is not None:
        return modules, "modules.json"
    adapted = adapter_task(source.adapter) if source.adapter is not None else None
    if adapted is not None:
        return catalog.task_called(adapted), "the adapter's task_type"
    return _by_weights(source, config)


def _by_weights(source: Source, config: PretrainedConfig) -> tuple[str, str]:
    """The task whose head has its weights, or that the class name says."""
    named = catalog.named_task(config)
    architecture = (config.architectures or [""])[0]
    by_name = f"the class name {architecture}" if architecture else f"the model type {config.model_type}"
    names = tensor_names(source.weights) if source.weights is not None else _names_of(architecture, config)
    if named in (_VECTORS, VECTORS):
        _check_head(config, named, names)
    else:
        _check_parts(config, named, names)
    if named not in (*HEADS, catalog.WRITE, VECTORS) and not _is_bare(config):
        return named, by_name
    if not names or named == VECTORS:
        return named, by_name
    if named not in (*HEADS, catalog.WRITE):
        return _bare_pair(source, config, named, names)
    fit = _fit(config, named, names)
    if fit is None:
        return named, by_name
    if not fit.missing and not (named == _VECTORS and fit.unread):
        return named, by_name
    heads = [task for task in (*HEADS, catalog.WRITE) if task != named and _has_head(config, task, names)]
    if len(heads) == 1:
        return heads[0], "the head whose weights are there"
    if named in HEADS and not heads and _lacks_head(config, fit, names):
        return _VECTORS, f"the weights, which have no head, whatever {architecture} says"
    return named, by_name


def _check_parts(config: PretrainedConfig, named: str, names: list[str]) -> None:
    """Refuse a class with parts that the task has no use for, such as one that speaks besides writing what it hears.

    Heads for training and for other tasks are no parts.
    """
    architecture = (config.architectures or [""])[0]
    whole_class, loaded = getattr(transformers, architecture or " ", None), catalog.model_class(config, named)
    if None in (whole_class, loaded) or whole_class is loaded or architecture.endswith(_SEVERAL_HEADS):
        return
    whole, used = without_weights(whole_class, config), without_weights(loaded, config)
    if whole is None or used is None:
        return
    beyond, unknown = match(used, names), match(whole, names)
    left = (beyond.unread | beyond.skipped) - unknown.unread - unknown.skipped
    # One that lacks weights is refused for that when it is loaded.
    if left and not beyond.missing:
        parts = sorted({part.split(".")[0] for part in parts_lacked(used, left)})
        raise UnsupportedModelError(
            f"{architecture} has parts that a bundle for {named} has no use for: {', '.join(parts)}; "
            f"--task {named} exports it without them"
        )


def _check_head(config: PretrainedConfig, named: str, names: list[str]) -> None:
    """Refuse a class with a head that is for no task, such as a projection into another model's space."""
    architecture = (config.architectures or [""])[0]
    if not architecture or _is_bare(config) or architecture.endswith(_PRETRAINED):
        return
    fit = _fit(config, named, names)
    if fit is not None and fit.unread:
        without = "" if fit.missing else f"; --task {named} exports it without them"
        raise UnsupportedModelError(
            f"{architecture} has {len(fit.unread)} weights that no bundle has a use for, "
            f"such as {min(fit.unread)}{without}"
        )


def _bare_pair(source: Source, config: PretrainedConfig, named: str, names: list[str]) -> tuple[str, str]:
    """The task of an encoder-decoder whose class name has no head; a head tied to the embedding needs no weights."""
    loaded = catalog.model_class(config, named)
    empty = None if loaded is None else without_weights(loaded, config)
    # transformers reads some configs as if they were tied even where they say that they are not.
    written = content_of(source.model_folder / "config.json")
    untied = isinstance(written, dict) and written.get("tie_word_embeddings") is False and "lm_head.weight" not in names
    if empty is not None and (untied or match(empty, names).missing):
        raise UnsupportedModelError(f"{(config.architectures or [''])[0]} writes no text: it has no weights of a head")
    return named, "the weights, which have all that its head needs"


def _is_bare(config: PretrainedConfig) -> bool:
    architecture = (config.architectures or [""])[0]
    return bool(architecture) and architecture == getattr(
        transformers.MODEL_MAPPING.get(type(config), None), "__name__", None
    )


def _names_of(architecture: str, config: PretrainedConfig) -> list[str]:
    """The names of the tensors that a class saves, where there are no weights; none for a class of other code."""
    model = without_weights(getattr(transformers, architecture, None), config) if architecture else None
    return [] if model is None else list(model.state_dict())


def _fit(config: PretrainedConfig, task: str, names: Iterable[str]) -> Match | None:
    """How tensors match a task's class, without the parts that may be missing; None where there is no such class."""
    loaded = catalog.model_class(config, task)
    model = None if loaded is None else without_weights(loaded, config)
    if model is None:
        return None
    matched = match(model, names)
    unused = set(UNUSED.get(task, ()))
    return Match(frozenset(name for name in matched.missing if not set(name.split(".")) & unused), matched.unread)


def _lacks_head(config: PretrainedConfig, fit: Match, names: list[str]) -> bool:
    """Whether only the head's weights are missing, and all of them."""
    bare = _fit(config, _VECTORS, names)
    return bare is not None and not bare.missing and bare.unread <= fit.unread


def _fits(config: PretrainedConfig, task: str, names: Iterable[str]) -> bool:
    fit = _fit(config, task, names)
    return fit is not None and not fit.missing


def _has_head(config: PretrainedConfig, task: str, names: list[str]) -> bool:
    """Whether a task's class has all weights, some of which are a head's own."""
    if task == _VECTORS or not _fits(config, task, names):
        return False
    bare, whole = _fit(config, _VECTORS, names), _fit(config, task, names)
    return bare is not None and whole is not None and whole.unread < bare.unread
