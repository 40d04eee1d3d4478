"""Which options may have a default outside the command line.

A file in the working folder may come from strangers, as the folder may. So an option has a default only if it changes
what is computed, or how it is printed: every number, and the words that are listed here. Everything that names a file,
loads code, reaches the network, replaces or continues something, or turns a check off is given on the command line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

# Options whose values are words, texts, or true and false.
_WORDS = frozenset(
    {
        # How something is computed.
        *("aggregation", "condition-on-previous-text", "dtype", "early-stopping", "fast-prompts", "hidden-states"),
        *("max-loss", "on-overflow", "output-dtype", "provider", "quantize", "speculate", "strict", "target"),
        *("target-size", "timestamps", "vad", "word-timestamps"),
        # What is asked of a model.
        *("bad-words", "begin-suppress-tokens", "choices", "exponential-decay-length-penalty", "forced-eos-token-id"),
        *("forced-tokens", "dry-sequence-breakers", "hotwords", "hypothesis-template", "initial-prompt", "labels"),
        *("language", "logit-bias", "multi-label", "no-answer", "order", "prefill", "prefix", "prompt", "prompt-name"),
        *("query-prompt", "query-prompt-name", "raw", "regex", "source-lang", "stop", "stop-token", "suppress-tokens"),
        *("system", "target-lang", "targets", "task", "template", "template-var"),
        # Where texts are in a file.
        *("column", "field", "fields", "lines", "query-field"),
        # How results are printed.
        *("dry-run", "exact", "format", "json", "stats"),
    }
)  # fmt: skip


def options_of(command: Any) -> dict[str, Any]:
    """The options of a command by each of their names, such as ``top-k``.

    Args:
        command: click's.
    """
    options = (parameter for parameter in command.params if parameter.param_type_name == "option")
    return {name: parameter for parameter in options for name in names_of(parameter)}


def names_of(parameter: Any) -> Sequence[str]:
    """The names of an option: its flags without dashes, the longest first."""
    return sorted((flag.lstrip("-") for flag in parameter.opts), key=len, reverse=True)


def kind_of(parameter: Any) -> Literal["bool", "int", "float", "text"]:
    """What an option's value is; each value of a repeatable one."""
    kinds: dict[str, Literal["bool", "int", "float"]]
    kinds = {
        "BoolParamType": "bool", "IntParamType": "int", "IntRange": "int", "FloatParamType": "float",
        "FloatRange": "float",
    }  # fmt: skip
    return kinds.get(type(parameter.type).__name__, "text")


def may_have_default(parameter: Any) -> bool:
    """Whether an option may have a default outside the command line."""
    return kind_of(parameter) in ("int", "float") or not _WORDS.isdisjoint(names_of(parameter))
