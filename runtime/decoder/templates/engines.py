"""Chooses the engine that renders a template."""

from __future__ import annotations

from triform.runtime.bundle.text_info import JINJA2
from triform.runtime.decoder.templates.isolation import Render, end, isolated, start


def renderer(engine: str) -> Render:
    """The function that renders templates with an engine, in a child process where that is possible.

    Args:
        engine: one of `TEMPLATE_ENGINES`.

    Raises:
        UnsupportedError: Jinja2 is not installed.
    """
    return isolated(engine, _imported(engine))


def start_engine(engine: str) -> None:
    """Start the child process that renders templates with an engine. Arguments and errors as `renderer`."""
    start(engine, _imported(engine))


def end_engines() -> None:
    """End the child processes; where they are needed again, they start again."""
    end()


def _imported(engine: str) -> Render:
    if engine == JINJA2:
        from triform.runtime.decoder.templates import sandbox

        return sandbox.render_with_jinja2
    from triform.runtime.decoder.templates import environment

    return environment.render_with_minijinja
