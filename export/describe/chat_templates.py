"""The chat templates of a tokenizer, as files of a bundle."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DEFAULT = "default"


def chat_templates(tokenizer: Any) -> dict[str, str]:
    """The templates that are not empty, by name; a tokenizer's only template is called "default"."""
    templates = tokenizer.chat_template
    named: Mapping[str, str] = templates if isinstance(templates, Mapping) else {DEFAULT: templates or ""}
    return {name: template for name, template in named.items() if template}


def write_chat_templates(templates: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Write each template to a file of its own.

    Args:
        templates: by name, from `chat_templates`.
        folder: to write to.

    Returns:
        the names of the files, by template.
    """
    files: dict[str, str] = {}
    for name, template in templates.items():
        file = "chat_template.jinja" if name == DEFAULT else _file_name(name, files)
        # Line breaks are kept as they are: some templates need Windows' own.
        (folder / file).write_text(template, encoding="utf-8", newline="")
        files[name] = file
    return files


def _file_name(name: str, files: Mapping[str, str]) -> str:
    """A file name for a template, whatever it is called."""
    plain = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:60]
    taken = {file.lower() for file in files.values()}
    candidates = (f"chat_template.{plain}{suffix}.jinja" for suffix in ("", *map(str, range(1, len(files) + 2))))
    return next(file for file in candidates if file.lower() not in taken)
