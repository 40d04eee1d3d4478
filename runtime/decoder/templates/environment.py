"""Renders templates with minijinja, set up to behave like Jinja2 with transformers' extensions."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from triform.runtime.decoder.templates.filters import FILTERS, TESTS
from triform.runtime.decoder.templates.functions import Refusal, raise_exception, strftime_now
from triform.runtime.decoder.templates.methods import call_method
from triform.runtime.decoder.templates.rewriting import rewritten

# The most instructions that minijinja runs for a template, so that an endless loop stops. Two thousand messages take a
# few hundred thousand.
_FUEL = 5_000_000
# The most characters of a template; the longest that models have are about 30,000.
_LONGEST = 2**18
# minijinja recurses into nested expressions and values. A stack of this many bytes is enough for any template within
# the limits above.
_STACK = 2**29
_starting = threading.Lock()


def render_with_minijinja(source: str, variables: Mapping[str, Any]) -> str:
    """Render a template with minijinja; see `isolation.Render`."""
    if len(source) > _LONGEST:
        raise Refusal(f"it has more than {_LONGEST} characters")
    return _on_large_stack(lambda: _environment().render_str(rewritten(source), **variables))


def _on_large_stack(work: Callable[[], str]) -> str:
    """Call `work` in a thread with a large stack, or in this thread if there is no memory for one."""
    results: list[str] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # handed to the caller's thread
            errors.append(error)

    thread = threading.Thread(target=run, name="triform-template", daemon=True)
    with _starting:
        before = threading.stack_size(_STACK)
        try:
            thread.start()
        except RuntimeError:
            return work()
        finally:
            threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


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
    # In Jinja2, the template's blocks; chat templates have none.
    environment.add_global("self", {})
    return environment


def _dict(*arguments: Any, **named: Any) -> dict[str, Any]:
    return dict(*arguments, **named)


def _finalize(value: Any) -> Any:
    # minijinja renders 1e-07 as 0.0000001.
    return repr(value) if isinstance(value, float) and "e" in repr(value) else NotImplemented


def _no_escape(_: str) -> bool:
    return False
