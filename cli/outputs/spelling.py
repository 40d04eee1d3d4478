"""Spells names in the runtime's messages as the command line does.

The runtime writes an option as `` `top_k` `` and a method as `` `Encoder.embed` ``; a user of the command line reads
``--top-k`` and `` `triform embed` ``.
"""

from __future__ import annotations

import re
from typing import Any

_NAME = re.compile(r"`(\w+(?:\.\w+)?)`")
# Points to an option that the command may not have.
_HINT = re.compile(r", or see `(\w+)`")
# The command for each method.
_COMMANDS = {
    "Conversation": "chat",
    "Decoder.generate": "generate",
    "Encoder.answer": "answer",
    "Encoder.classify": "classify",
    "Encoder.classify_audio": "classify-audio",
    "Encoder.classify_images": "classify-image",
    "Encoder.embed": "embed",
    "Encoder.embed_images": "embed",
    "Encoder.fill_mask": "fill-mask",
    "Encoder.match_labels": "classify-image",
    "Encoder.next_sentence": "next-sentence",
    "Encoder.search": "search",
    "Encoder.tag": "tag",
    "EncoderDecoder.generate": "rewrite",
    "EncoderDecoder.read_images": "read-image",
    "SpeechModel.transcribe": "transcribe",
}
# By the name of the option in Python, the flag of the command that runs.
_flags: dict[str, str] = {}


def use_flags_of(command: Any) -> None:
    """Spell options as this command does, from now on.

    Args:
        command: click's, with its parameters.
    """
    _flags.clear()
    for parameter in command.params:
        if parameter.param_type_name == "option":
            flag = max(parameter.opts, key=len)
            _flags[parameter.name] = flag
            if parameter.multiple:
                # A repeatable option takes one value; the attribute in Python is a plural.
                _flags[f"{parameter.name}s"] = flag


def spelled(message: str) -> str:
    """A message of the runtime with the command line's names; other names stay as they are.

    A hint to see an option that the command does not have is left out.
    """
    message = _HINT.sub(lambda match: match[0] if match[1] in _flags else "", message)
    return _NAME.sub(lambda match: _spelling(match[1]) or match[0], message)


def _spelling(name: str) -> str | None:
    owner, _, attribute = name.rpartition(".")
    if owner == "ExportOptions":
        return f"--{attribute.replace('_', '-')}"
    if name in _COMMANDS:
        return f"`triform {_COMMANDS[name]}`"
    return _flags.get(name)
