"""The engines that render a template."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from triform.runtime.bundle.text_info import JINJA2

# Called with a template's source and the variables by name; gives the text. What goes wrong raises whatever it wants.
Render = Callable[[str, Mapping[str, Any]], str]


def renderer(engine: str) -> Render:
    """What renders templates with an engine, imported when it is used.

    Args:
        engine: one of `TEMPLATE_ENGINES`.

    Raises:
        UnsupportedError: Jinja2 is not installed.
    """
    if engine == JINJA2:
        from triform.runtime.decoder.templates import sandbox

        return sandbox.render
    from triform.runtime.decoder.templates import environment

    return environment.render
