"""Jinja2's sandbox as transformers sets it up, for templates that minijinja renders otherwise."""

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

# Passes of loops and calls that a template may make.
_STEPS = 2_000_000
# Characters or items that one operation of a template may make.
_LARGEST = 10_000_000


class _Generation(Extension):
    """Marks what an assistant said, for training; what is inside is rendered in a scope of its own."""

    tags = {"generation"}  # noqa: RUF012, as Jinja2 declares it

    def parse(self, parser: Any) -> nodes.Node:
        """A block whose content is called as a macro is."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    def _inside(self, caller: Any) -> str:
        return str(caller())


class _Environment(ImmutableSandboxedEnvironment):
    """Counts the steps of a template, and bounds what one of them makes."""

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
        """A product or a power that fits into memory."""
        for value, other in ((left, right), (right, left)):
            if isinstance(value, int) and not isinstance(other, float):
                size = len(other) if hasattr(other, "__len__") else abs(other).bit_length() if operator == "**" else 0
                if size * abs(value) > _LARGEST:
                    raise Refusal("a product is too large")
        return super().call_binop(context, operator, left, right)

    def call(self, context: Any, target: Any, *arguments: Any, **named: Any) -> Any:
        """A call, counted."""
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
            raise Refusal("it does not come to an end")


class _Namespace(jinja2.utils.Namespace):
    """As transformers has it: without names that begin with an underscore."""

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
        jinja2.TemplateError: it is none.
    """
    return _Environment().parse(source)


def render(source: str, variables: Mapping[str, Any]) -> str:
    """Render a template with Jinja2; see `isolation.Render`."""
    environment, template = _compiled(source)
    environment.steps = 0
    return str(template.render(**variables))


def _dict(*arguments: Any, **named: Any) -> dict[str, Any]:
    return dict(*arguments, **named)
