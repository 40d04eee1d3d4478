"""Accounts for every tensor of a checkpoint by its name, so that nothing is dropped silently.

transformers loads what fits and ignores the rest. Here a tensor that no part of the model reads must have a reason: it
is a buffer or a copy that transformers lists as superseded, or part of a head for another task. Any other stops the
export. Whole parts that transformers skips without a word, such as a vocoder, are listed with those heads, and so are
parts that nothing of a bundle depends on, such as an encoder of images beside one of texts.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import re
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from triform.export.checkpoint.quiet import quiet
from triform.runtime.errors import ExportError

# How many names an error lists.
_LISTED = 3


@dataclass(frozen=True)
class Match:
    """How the tensors of a checkpoint fit a model.

    Attributes:
        missing: parameters and buffers of the model without a tensor; tied copies and what transformers computes are
            not among them.
        unread: tensors that no part of the model reads, and that transformers reports.
        skipped: tensors of parts that the model does not have, which transformers skips without a report.
    """

    missing: frozenset[str]
    unread: frozenset[str]
    skipped: frozenset[str] = frozenset()


def match(model: PreTrainedModel, names: Iterable[str]) -> Match:
    """Match the names of a checkpoint's tensors with a model, renamed as transformers renames them on loading.

    Args:
        model: may be without weights.
        names: of the checkpoint.
    """
    held = model.state_dict()
    renamings, converters = _transforms(model)
    read = {name: _renamed(model, name, held, renamings, converters) for name in names}
    targets = set(read.values())
    for converter in converters:
        # Several tensors become one, or one becomes several, which all have their names from the first.
        targets |= {
            target.replace(converter.target_patterns[0], other)
            for target in tuple(targets)
            for other in converter.target_patterns[1:]
        }
    absent = _without(set(held) - targets - _tied(model), model._keys_to_ignore_on_load_missing)
    beyond = _without({name for name, renamed in read.items() if renamed not in held}, _superseded_buffers(model))
    unread = _without(beyond, model._keys_to_ignore_on_load_unexpected)
    # What is skipped in a part that the model has is a buffer or a copy that it computes today.
    parts = {name for name, _ in model.named_modules()}
    parts |= {name.removeprefix(f"{model.base_model_prefix}.") for name in parts}
    skipped = {name for name in beyond - unread if read[name].rpartition(".")[0] not in parts}
    return Match(frozenset(absent), frozenset(unread), frozenset(skipped))


def renamed(model: PreTrainedModel, name: str) -> str:
    """The model's own name of a tensor of a checkpoint."""
    return _renamed(model, name, model.state_dict(), *_transforms(model))


def parts_lacked(model: PreTrainedModel, names: Iterable[str]) -> dict[str, int]:
    """By the part that the model does not have, how many of the tensors of a checkpoint belong to it; largest first.

    Args:
        model: as loaded.
        names: of tensors that it does not read.
    """
    held, (renamings, converters) = model.state_dict(), _transforms(model)
    own = {name for name, _ in model.named_modules()}
    counts: Counter[str] = Counter()
    for name in names:
        paths = _paths(_renamed(model, name, held, renamings, converters))
        counts[next((path for path in paths if path not in own), name)] += 1
    return dict(counts.most_common())


def unreached_weights(model: torch.nn.Module, output: torch.Tensor) -> tuple[str, ...]:
    """The names of the parameters that an output does not depend on, sorted.

    Args:
        model: whose parameters require gradients.
        output: of the model, computed with gradients on; none is computed here.
    """
    reached, seen, queue = set(), set(), [output.grad_fn]
    while queue:
        node: Any = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        reached.add(id(getattr(node, "variable", None)))
        queue += [before for before, _ in node.next_functions]
    return tuple(sorted(name for name, parameter in model.named_parameters() if id(parameter) not in reached))


def unreached_parts(model: torch.nn.Module, names: tuple[str, ...]) -> dict[str, int]:
    """By the largest part of a model that has no other parameters, how many of these it has; largest first."""
    unused = set(names)
    used = (name for name, _ in model.named_parameters() if name not in unused)
    parts_in_use = {part for name in used for part in _paths(name)[:-1]}
    counts = Counter(next(path for path in _paths(name) if path not in parts_in_use) for name in names)
    return dict(counts.most_common())


def _paths(name: str) -> list[str]:
    """The parts that a parameter is in, the largest first, and its own name."""
    return list(itertools.accumulate(name.split("."), lambda path, piece: f"{path}.{piece}"))


def without_weights(model_class: Any, config: PretrainedConfig) -> PreTrainedModel | None:
    """A model of a class with names and shapes only; None where the class does not take the config."""
    try:
        with quiet(), torch.device("meta"):
            # A class may change the config that it is given, as Marian's decoder alone does.
            return model_class(copy.deepcopy(config))
    except Exception:  # each class has its own requirements
        return None


def left_out(name: str, model: PreTrainedModel, unexpected: Iterable[str], names: Iterable[str]) -> tuple[str, ...]:
    """The names of tensors that a loaded model does not read because they belong to other parts of the checkpoint.

    These are heads for other tasks, and what transformers skips, such as what turns texts into speech.

    Args:
        name: of the checkpoint.
        model: as loaded.
        unexpected: the keys that transformers reports as unexpected, as it renamed them.
        names: of all tensors of the checkpoint.

    Raises:
        ExportError: there are others that it does not read.
    """
    reported, matched = set(unexpected), match(model, names)
    unread = frozenset(tensor for tensor in matched.unread if renamed(model, tensor) in reported)
    unknown = unread
    for other in _relatives(model):
        empty = without_weights(other, model.config)
        unknown = unknown & match(empty, unknown).unread if empty is not None else unknown
    if unknown:
        lost = sorted(unknown)
        more = f" and {len(lost) - _LISTED} more" if len(lost) > _LISTED else ""
        raise ExportError(
            f"{name} has weights that a {type(model).__name__} does not read and that would be lost: "
            f"{', '.join(lost[:_LISTED])}{more}; its config does not say what they are for"
        )
    return tuple(sorted(unread | matched.skipped))


def _transforms(model: PreTrainedModel) -> tuple[list[Any], list[Any]]:
    """How transformers renames a checkpoint's tensors for a model, and which it joins or splits."""
    mapping = get_model_conversion_mapping(model, None, getattr(model, "hf_quantizer", None))
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    return renamings, [entry for entry in mapping if isinstance(entry, WeightConverter)]


def _renamed(
    model: PreTrainedModel, name: str, held: dict[str, Any], renamings: list[Any], converters: list[Any]
) -> str:
    target: str = rename_source_key(name, renamings, converters, model.base_model_prefix, held)[0]
    # Some names only look like those of another release.
    return name if target not in held and name in held else target


def _relatives(model: PreTrainedModel) -> list[Any]:
    """The classes of the same family, which read the same config."""
    module = sys.modules[type(model).__module__]
    return [
        other
        for _, other in inspect.getmembers(module, inspect.isclass)
        if issubclass(other, PreTrainedModel)
        and other is not type(model)
        and getattr(other, "config_class", None) is type(model.config)
        and other.__module__ == module.__name__
    ]


def _tied(model: PreTrainedModel) -> set[str]:
    return set(getattr(model, "all_tied_weights_keys", None) or ())


def _superseded_buffers(model: PreTrainedModel) -> list[str]:
    """Buffers that older releases saved and that transformers computes today."""
    buffers = [name for name, _ in model.named_buffers()]
    # The masks of GPT-2 and its kin, and the number that they wrote where tokens may not look.
    patterns = [r"\.(attn|attention)\.masked_bias$", r"(^|\.)h\.\d+\.attn\.bias$"]
    if any(name.endswith("rotary_emb.inv_freq") for name in buffers):
        patterns.append(r"rotary_emb\.(inv_freq|cos_cached|sin_cached)")
    if any(name.endswith("position_ids") for name in buffers):
        patterns.append(r"(^|\.)position_ids$")
    # Those that are not saved any more, such as the masks of GPT-Neo; a checkpoint may have the trunk's prefix or not.
    prefix = f"{model.base_model_prefix}."
    computed = [name.removeprefix(prefix) for name in set(buffers) - set(model.state_dict())]
    return [*patterns, *(rf"^({re.escape(prefix)})?{re.escape(name)}$" for name in computed)]


def _without(names: set[str], patterns: Iterable[str] | None) -> set[str]:
    return {name for name in names if not any(re.search(pattern, name) for pattern in patterns or ())}
