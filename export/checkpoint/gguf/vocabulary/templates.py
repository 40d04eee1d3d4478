"""Reads the chat templates of a file: one, or several with names."""

from __future__ import annotations

from triform.export.checkpoint.gguf.container import GgufFile

_DEFAULT = "tokenizer.chat_template"


def gguf_chat_templates(file: GgufFile) -> str | dict[str, str] | None:
    """The templates in transformers' form: a str, a dict by name, or None."""
    named = {
        key.removeprefix(f"{_DEFAULT}."): str(text)
        for key, text in file.values.items()
        if key.startswith(f"{_DEFAULT}.")
    }
    default = file.values.get(_DEFAULT)
    if not named:
        return None if default is None else str(default)
    return named if default is None else {"default": str(default), **named}
