"""minijinja with Jinja2's meaning, and with what transformers adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from triform.runtime.decoder.templates.filters import FILTERS, TESTS
from triform.runtime.decoder.templates.functions import raise_exception, strftime_now
from triform.runtime.decoder.templates.methods import call_method
from triform.runtime.decoder.templates.rewriting import rewritten

# Steps a template may take: two thousand messages take some hundred thousand; a template that never ends is stopped.
_FUEL = 50_000_000


def render(source: str, variables: Mapping[str, Any]) -> str:
    """Render a template with minijinja; see `Render`."""
    text: str = _environment().render_str(rewritten(source), **variables)
    return text


@cache
def _environment() -> Any:
    from minijinja import Environment

    environment = Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        pycompat=True,
        fuel=_FUEL,
        auto_escape_callback=_no_escape,
        finalizer=_finalize,
        filters=FILTERS,
        tests=TESTS,
    )
    environment.add_global("raise_exception", raise_exception)
    environment.add_global("strftime_now", strftime_now)
    environment.add_global("_method", call_method)
    environment.add_global("dict", _dict)
    # Jinja2's blocks of a template, which chat templates have none of.
    environment.add_global("self", {})
    return environment


def _dict(*arguments: Any, **named: Any) -> dict[str, Any]:
    return dict(*arguments, **named)


def _finalize(value: Any) -> Any:
    # minijinja writes 1e-07 as 0.0000001.
    return repr(value) if isinstance(value, float) and "e" in repr(value) else NotImplemented


def _no_escape(_: str) -> bool:
    return False
