"""Chooses the engine that renders a template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from triform.runtime.bundle.text_info import JINJA2

# From a template's source and its variables by name to the text. It may raise any exception.
Render = Callable[[str, Mapping[str, Any]], str]


def renderer(engine: str) -> Render:
    """The function that renders templates with an engine, which is imported here.

    Args:
        engine: one of `TEMPLATE_ENGINES`.

    Raises:
        UnsupportedError: Jinja2 is not installed.
    """
    if engine == JINJA2:
        from triform.runtime.decoder.templates import sandbox

        return sandbox.render_with_jinja2
    from triform.runtime.decoder.templates import environment

    return environment.render_with_minijinja
