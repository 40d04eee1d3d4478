"""Chooses the engine that renders chat templates as transformers does: minijinja, unless a comparison fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import jinja2
from jinja2 import nodes

from triform.export.checkpoint.quiet import quiet
from triform.export.describe.chat_templates import chat_templates
from triform.export.describe.special_tokens import special_strings
from triform.models.errors import first_line
from triform.runtime.bundle.text_info import MINIJINJA, TEMPLATE_ENGINES
from triform.runtime.decoder.chat_template import render_chat
from triform.runtime.decoder.templates import sandbox
from triform.runtime.decoder.templates.methods import METHODS
from triform.runtime.errors import ExportError, InputError, option

_USER = {"role": "user", "content": " Hi \u00e9 <b>\n'two' \"3\" "}
_SYSTEM = {"role": "system", "content": "Be brief."}
_ASSISTANT = {"role": "assistant", "content": "Yes, 'it' is.\n"}
_ARGUMENTS = {
    "city": "K\u00f6ln <x>",
    "days": 2,
    "more": [1.5, 2.0, True, None, {"a": "b"}],
    "least": 1e-07,
    "most": 2.0,
}
_CALL = {"id": "abc123def", "type": "function", "function": {"name": "weather", "arguments": _ARGUMENTS}}
_TEXT_CALL = {**_CALL, "function": {"name": "weather", "arguments": '{"city": "K\u00f6ln", "days": 2.0}'}}
_RESULT = {"role": "tool", "name": "weather", "content": '{"sky": "gray"}', "tool_call_id": "abc123def"}
_TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a <b>'city'</b> & its \u00e9tat",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "where", "enum": ["K\u00f6ln", "Paris"]},
                "days": {"type": ["integer", "null"], "default": 1.0},
                "more": {"type": "array", "items": {"type": "number"}},
            },
            "required": ["city"],
        },
        "return": {"type": "string"},
    },
}


def _called(call: Mapping[str, Any], content: str | None) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": [call]}


# Kinds of conversations that a model may be given.
PROBES: dict[str, list[dict[str, Any]]] = {
    "a question": [_USER],
    "a system message": [_SYSTEM, _USER],
    "several turns": [_SYSTEM, _USER, _ASSISTANT, _USER],
    "an answer at the end": [_USER, _ASSISTANT],
    "an empty question": [{"role": "user", "content": ""}],
    "an empty answer": [_USER, {"role": "assistant", "content": ""}, _USER],
    "two questions": [_USER, _USER],
    "a call without content": [_USER, _called(_CALL, None)],
    "a call and its result": [_SYSTEM, _USER, _called(_CALL, ""), _RESULT],
    "a call, its result and an answer": [_USER, _called(_CALL, "Let me see."), _RESULT, _ASSISTANT, _USER],
    "a call in JSON": [_USER, _called(_TEXT_CALL, None), _RESULT],
    "parts": [{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "text", "text": " Now."}]}],
    "a thought": [_USER, {**_ASSISTANT, "reasoning_content": "Hm,\nwell."}, _USER],
    "a thought in the answer": [_USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."}, _USER],
}
_VARIABLES: tuple[dict[str, Any], ...] = (
    {},
    {"enable_thinking": False},
    {"enable_thinking": True},
    {"documents": [{"title": "A <b>", "text": "B\n"}]},
)


@dataclass(frozen=True)
class Rendering:
    """One way to render a conversation: arguments of transformers' ``apply_chat_template``."""

    probe: str
    prompt: bool = False
    ends: bool = False
    tools: tuple[dict[str, Any], ...] = ()
    variables: Mapping[str, Any] = field(default_factory=dict)


def renderings(template: str) -> Iterator[Rendering]:
    """The renderings that a template's variables call for."""
    tools: tuple[tuple[dict[str, Any], ...], ...] = ((), (_TOOL, _TOOL)) if "tools" in template else ((),)
    used = [variables for variables in _VARIABLES if all(name in template for name in variables)]
    for probe, variables, listed, prompt in product(PROBES, used, tools, (True, False)):
        yield Rendering(probe, prompt, False, listed, variables)
    yield Rendering("an answer at the end", ends=True)


def choose_engine(tokenizer: Any) -> tuple[str, list[str]]:
    """The engine for a tokenizer's templates, and notes for the user.

    Renderings of every template by transformers and by each engine are compared, and templates are searched for
    features that minijinja is known to lack or to do differently.

    Raises:
        ExportError: none of them renders all templates as transformers does.
    """
    templates = chat_templates(tokenizer)
    if not templates:
        return MINIJINJA, []
    special, reason = special_strings(tokenizer), ""
    with quiet():
        expected = {name: _all_of_transformers(tokenizer, template) for name, template in templates.items()}
    for engine in TEMPLATE_ENGINES:
        differences = [_difference(template, expected[name], special, engine) for name, template in templates.items()]
        if engine == MINIJINJA:
            differences += [beyond_minijinja(template) for template in templates.values()]
        differing = next(filter(None, differences), None)
        if differing is None:
            notes = [f"the chat template is rendered by Jinja2, which the device needs: {reason}"] if reason else []
            return engine, notes + _never_rendered(expected)
        reason = reason or differing
    raise ExportError(
        f"the chat template cannot be rendered as transformers does: {differing}; "
        "remove it from the checkpoint to export a model without one"
    )


def _all_of_transformers(tokenizer: Any, template: str) -> dict[int, str | Exception]:
    return dict(enumerate(_theirs(tokenizer, template, rendering) for rendering in renderings(template)))


def _theirs(tokenizer: Any, template: str, rendering: Rendering) -> str | Exception:
    try:
        text = tokenizer.apply_chat_template(
            PROBES[rendering.probe],
            chat_template=template,
            tools=list(rendering.tools) or None,
            add_generation_prompt=rendering.prompt,
            continue_final_message=rendering.ends,
            tokenize=False,
            **rendering.variables,
        )
    except Exception as error:  # a template may raise anything
        return error
    return str(text)


def _difference(
    template: str, expected: Mapping[int, str | Exception], special: Mapping[str, str], engine: str
) -> str | None:
    """Where an engine first differs from transformers, in words; None if it does not."""
    for index, rendering in enumerate(renderings(template)):
        theirs = expected[index]
        try:
            ours: str | InputError = render_chat(
                template,
                PROBES[rendering.probe],
                {**special, **rendering.variables},
                add_generation_prompt=rendering.prompt,
                continue_final=rendering.ends,
                tools=list(rendering.tools) or None,
                engine=engine,
            )
        except InputError as error:
            ours = error
        differing = _compare(ours, theirs)
        if differing is not None:
            return f"of {rendering.probe}, {engine} makes {differing}"
    return None


def _compare(ours: str | InputError, theirs: str | Exception) -> str | None:
    """An engine's result, in words, where transformers' differs."""
    if isinstance(ours, str) and isinstance(theirs, str):
        return None if ours == theirs else _at_difference(ours, theirs)
    if isinstance(theirs, str):
        reason = str(ours).removeprefix("the chat template refuses these messages: ").partition(f"; {option('raw')}")[0]
        return f"nothing: {reason}"
    return f"a text, and transformers none: {first_line(theirs)}" if isinstance(ours, str) else None


def _at_difference(ours: str, theirs: str) -> str:
    place = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if len(set(pair)) > 1), None)
    start = max((min(len(ours), len(theirs)) if place is None else place) - 10, 0)
    return f"{ours[start : start + 40]!r} where transformers makes {theirs[start : start + 40]!r}"


def _never_rendered(expected: Mapping[str, Mapping[int, str | Exception]]) -> list[str]:
    notes = []
    for name, results in expected.items():
        errors = [result for result in results.values() if isinstance(result, Exception)]
        if len(errors) == len(results):
            notes.append(f"the chat template {name} refuses every conversation tried: {first_line(errors[0])}")
    return notes


_FILTERS = frozenset(("urlize", "xmlattr", "attr", "pprint", "filesizeformat"))
_TESTS = frozenset(("escaped", "callable"))
_NAMES = frozenset(("lipsum", "cycler", "joiner", "varargs", "kwargs"))
# Methods that minijinja has itself.
_OWN_METHODS = frozenset(
    (
        "capitalize", "format", "get", "isalnum", "isalpha", "isascii", "isdigit", "islower", "isnumeric", "isspace",
        "isupper", "items", "join", "keys", "lower", "lstrip", "rstrip", "splitlines", "strip", "upper", "values",
    )
)  # fmt: skip
_PYTHON_METHODS = frozenset(
    name for kind in (str, list, dict, int, float) for name in dir(kind) if not name.startswith("_")
)


def beyond_minijinja(template: str) -> str | None:
    """A feature of a template that minijinja is known to lack or to do differently, in words; None without one."""
    try:
        tree = sandbox.parse(template)
    except jinja2.TemplateError:
        # transformers cannot read it either.
        return None
    except RecursionError:
        return "an expression that is nested too deeply"
    called = {id(call.node) for call in tree.find_all(nodes.Call)}
    for node in tree.find_all(nodes.Node):
        what = _construct(node, is_called=id(node) in called)
        if what is not None:
            return f"minijinja has {what} otherwise than Jinja2"
    return None


def _construct(node: nodes.Node, *, is_called: bool) -> str | None:
    match node:
        case nodes.Filter(name=name) if name in _FILTERS:
            return f"the filter {name}"
        case nodes.Filter(name="sort" | "unique" | "dictsort" as name, args=[_, _, *_]):
            return f"arguments of the filter {name}"
        case nodes.Test(name=name) if name in _TESTS:
            return f"the test {name}"
        case nodes.Name(name=name) if name in _NAMES:
            return f"the name {name}"
        case nodes.Getattr(attr=name) if is_called and name in _PYTHON_METHODS - METHODS - _OWN_METHODS:
            return f"the method {name}"
        case nodes.Getattr(attr=name) if not is_called and hasattr(dict, name):
            # In Jinja2 it is a method of the object, not the value of that key.
            return f"the attribute {name} of an object"
        case nodes.Mod(left=nodes.Const(value=str())) | nodes.Pos():
            return "the operator % of a text, or the sign +"
        case nodes.Const(value=float() as value) if "e" in repr(value) or value != value:
            return f"the number {value}"
        case nodes.Output(nodes=children) if any(map(_is_view, children)):
            return "a range, or the items of an object, written as they are"
    return None


def _is_view(node: nodes.Node) -> bool:
    match node:
        case (
            nodes.Call(node=nodes.Getattr(attr="items" | "keys" | "values")) | nodes.Call(node=nodes.Name(name="range"))
        ):
            return True
    return False
