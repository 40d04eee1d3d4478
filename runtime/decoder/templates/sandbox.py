"""Renders templates in Jinja2's sandbox, set up as in transformers, if minijinja would render them differently."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from triform.runtime.decoder.templates.filters import tojson
from triform.runtime.decoder.templates.functions import Refusal, raise_exception, strftime_now
from triform.runtime.extras import missing_extra

try:
    import jinja2
    from jinja2 import nodes
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
except ImportError:
    raise missing_extra("this bundle's chat template needs Jinja2", "templates") from None

# The most calls and loop iterations of a template.
_STEPS = 2_000_000
# The most characters, items or bits that a product or power may produce.
_LARGEST = 10_000_000


class _Generation(Extension):
    """transformers' `generation` block, which marks the assistant's text for training; it has a scope of its own."""

    tags = {"generation"}  # noqa: RUF012, as Jinja2 declares it

    def parse(self, parser: Any) -> nodes.Node:
        """Parse the block as a call block, which renders its content as a macro."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller: Any) -> str:
        return str(caller())


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox that limits the steps of a template and the size of what one step can make."""

    intercepted_binops = frozenset(("*", "**"))

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self.steps = 0
        self.filters["tojson"] = tojson
        self.globals |= {
            "raise_exception": raise_exception,
            "strftime_now": strftime_now,
            "dict": _dict,
            "namespace": _Namespace,
            "_counted": self._counted,
        }

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Compute a product or a power.

        Raises:
            Refusal: the result is too large.
        """
        for value, other in ((left, right), (right, left)):
            if isinstance(value, int) and not isinstance(other, float):
                size = len(other) if hasattr(other, "__len__") else abs(other).bit_length() if operator == "**" else 0
                if size * abs(value) > _LARGEST:
                    raise Refusal("a product is too large")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, target: Any, *arguments: Any, **named: Any) -> Any:
        """Call a function or macro.

        Raises:
            Refusal: the template has made too many steps.
        """
        self._count()
        return super().call(context, target, *arguments, **named)

    def _parse(self, source: str, name: Any, filename: Any) -> nodes.Template:
        template = super()._parse(source, name, filename)
        for loop in template.find_all(nodes.For):
            loop.iter = nodes.Call(nodes.Name("_counted", "load"), [loop.iter], [], None, None, lineno=loop.lineno)
        return template

    def _counted(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self._count()
            yield value

    def _count(self) -> None:
        self.steps += 1
        if self.steps > _STEPS:
            raise Refusal("it takes too many steps")


class _Namespace(jinja2.utils.Namespace):
    """Jinja2's namespace without names that begin with an underscore, as in transformers."""

    def __init__(*arguments: Any, **named: Any) -> None:
        self, *values = arguments
        attributes = dict(*values, **named)
        for name in attributes:
            _check_name(name)
        jinja2.utils.Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise Refusal(f"a namespace has no attribute {name}")


@cache
def _compiled(source: str) -> tuple[_Environment, Any]:
    environment = _Environment()
    return environment, environment.from_string(source)


def parse(source: str) -> nodes.Template:
    """The syntax tree of a template.

    Raises:
        jinja2.TemplateError: the source is not a valid template.
    """
    return _Environment().parse(source)


def render_with_jinja2(source: str, variables: Mapping[str, Any]) -> str:
    """Render a template with Jinja2; see `isolation.Render`."""
    environment, template = _compiled(source)
    environment.steps = 0
    return str(template.render(**variables))


def _dict(*arguments: Any, **named: Any) -> dict[str, Any]:
    return dict(*arguments, **named)
