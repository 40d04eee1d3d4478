"""Rewrites templates so that minijinja renders what Jinja2 would.

minijinja accepts filters, tests and functions from Python, but no methods. In their arguments it makes no difference
between `none` and undefined values, or between 2.0 and 2. So method calls are rewritten as function calls, and some
filters and tests get an extra argument that makes the difference.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from triform.runtime.decoder.templates.filters import TESTS
from triform.runtime.decoder.templates.functions import Refusal
from triform.runtime.decoder.templates.methods import METHODS

# transformers' `generation` block marks the assistant's text for training and renders its content. minijinja does not
# have it, but a `with` block without variables has the same scope and whitespace control.
_GENERATION = re.compile(r"(\{%[-+]?\s*)(end)?generation(\s*[-+]?%\})")
_OPENING = re.compile(r"\{[{%#]")
_CLOSING = {"{{": "}}", "{%": "%}", "{#": "#}"}
_END_OF_RAW = re.compile(r"\{%[-+]?\s*endraw\s*[-+]?%\}")
_TOKEN = re.compile(
    r"""(?P<space>\s+)
    |(?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    |(?P<number>\d(?:\w|(?<=[eE])[+-](?=\d)|\.(?=\d))*)
    |(?P<name>[^\W\d]\w*)
    |(?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)
_PAIRS = {")": "(", "]": "[", "}": "{"}
# Names that cannot be called or indexed: a bracket after one of them begins a new value.
_KEYWORDS = frozenset(
    (
        "and", "call", "elif", "else", "filter", "for", "if", "in", "is", "not", "or", "print", "recursive", "set",
        "with",
    )
)  # fmt: skip
# Filters whose first argument minijinja accepts only by keyword, and the keyword.
_FIRST_ARGUMENT = {"sort": "reverse", "unique": "case_sensitive", "dictsort": "case_sensitive"}
# The most tokens of an operand that is repeated as an extra argument; nested, these repeats grow exponentially.
_LARGEST_OPERAND = 500
# The most tokens that the searches for the beginnings of values may pass, in one expression.
_MOST_STEPS_BACK = 200_000


class _Token(NamedTuple):
    kind: str
    text: str


@lru_cache(maxsize=16)
def rewritten(source: str) -> str:
    """Rewrite a template for minijinja.

    Args:
        source: the template. From an unclosed tag on, it is left as it is, and minijinja reports the error.

    Raises:
        Refusal: an expression is too large.
    """
    # Jinja2 reads every line break as one character.
    source = source.replace("\r\n", "\n").replace("\r", "\n")
    source = _GENERATION.sub(lambda tag: f"{tag[1]}{tag[2] or ''}with{tag[3]}", source)
    parts, place = [], 0
    while (opening := _OPENING.search(source, place)) is not None:
        tokens, end = _read(source, opening.end(), _CLOSING[opening[0]])
        if end is None:
            break
        parts += [source[place : opening.end()], _Expression(tokens).text()]
        place = end
        if [token.text for token in tokens if token.kind == "name"] == ["raw"]:
            raw = _END_OF_RAW.search(source, end)
            place = raw.end() if raw is not None else len(source)
            body = source[end:place]
            # Jinja2 removes the line break after every tag but `raw`; minijinja removes it here, too.
            parts.append(body.replace("%}\n", "%}\n\n", 1) if body.startswith("%}\n") else body)
    return "".join([*parts, source[place:]])


def _read(source: str, place: int, closing: str) -> tuple[list[_Token], int | None]:
    """The tokens up to a closing delimiter, and its place; None if there is none."""
    if closing == "#}":
        end = source.find(closing, place)
        return [_Token("space", source[place:end])], end if end >= 0 else None
    tokens: list[_Token] = []
    depth = 0
    while (match := _TOKEN.match(source, place)) is not None:
        if depth == 0 and source.startswith(closing, place + (source[place] in "-+")):
            return tokens, place
        tokens.append(_Token(str(match.lastgroup), match[0]))
        depth += (match[0] in "([{") - (match[0] in ")]}") if match.lastgroup == "sign" else 0
        place = match.end()
    return tokens, None


class _Expression:
    """The tokens of one ``{{ … }}`` or ``{% … %}``, rewritten from left to right."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._done: list[_Token] = []
        self._steps_back = 0

    def text(self) -> str:
        """The rewritten source."""
        place = 0
        while place < len(self._tokens):
            place = self._step(place)
        return "".join(token.text for token in self._done)

    def _step(self, place: int) -> int:
        """Rewrite the token at `place`; return the place of the next token to rewrite."""
        token, behind = self._tokens[place], self._next(place)
        before = self._before(len(self._done))
        follows = self._done[before].text if before >= 0 else ""
        if token.kind == "string":
            self._done.append(self._named_filter(token, before))
        elif token.kind != "name":
            self._done.append(token)
        elif follows == "." and token.text in METHODS and self._text(behind) == "(":
            return self._method(token.text, before, behind)
        elif follows == "|":
            return self._filter(token, before, place, behind)
        elif token.text in TESTS and self._text(behind) != "(" and self._is_test(before):
            self._done += [token, *_tokens("(", *self._operand(self._test_start(before)), " is none)")]
        elif token.text in ("boolean", "default_value") and self._text(behind) == "=" and self._in_default():
            return behind + 1
        else:
            self._done.append(token)
        return place + 1

    def _method(self, name: str, dot: int, bracket: int) -> int:
        """``VALUE.name(`` becomes ``_method(VALUE, 'name',``."""
        start = self._start(dot)
        value = self._done[start:dot]
        self._done[start:] = [
            _Token("name", "_method"), *_tokens("("), *value, *_tokens(","), _Token("string", f"'{name}'")
        ]  # fmt: skip
        if self._text(self._next(bracket)) != ")":
            self._done += _tokens(",")
        return bracket + 1

    def _filter(self, token: _Token, bar: int, place: int, behind: int) -> int:
        """Rewrite a filter: with extra arguments, another filter before or after it, or a keyword."""
        if token.text == "format":
            self._done += [_Token("name", "_widths"), *_tokens("|")]
        self._done.append(token)
        if token.text == "tojson":
            self._done += [*_tokens("|"), _Token("name", "_json")]
        elif token.text == "string":
            value = self._operand(bar)
            self._done += [*_tokens("|"), _Token("name", "_exact"), *_tokens("(", *value, ")")]
        elif token.text in _FIRST_ARGUMENT and self._text(behind) == "(":
            first = self._next(behind)
            if self._text(first) != ")" and self._text(self._next(first)) != "=":
                self._done += _tokens("(", _FIRST_ARGUMENT[token.text], "=")
                return behind + 1
        return place + 1

    def _named_filter(self, token: _Token, before: int) -> _Token:
        """A string; as the argument of `map`, the name of a filter, it may become another name."""
        call = self._before(before) if before >= 0 and self._done[before].text == "(" else -1
        if token.text[1:-1] == "tojson" and call >= 0 and self._done[call].text == "map":
            return _Token("string", "'_tojson'")
        return token

    def _is_test(self, before: int) -> bool:
        return self._done[self._test_start(before)].text == "is" if before >= 0 else False

    def _test_start(self, before: int) -> int:
        """The place of ``is`` in ``is`` or ``is not``."""
        return self._before(before) if self._done[before].text == "not" else before

    def _in_default(self) -> bool:
        """Whether the next token is in the arguments of the filter `default`."""
        depth, place = 0, len(self._done) - 1
        while place >= 0 and (depth or self._done[place].text != "("):
            self._count_step_back()
            depth += (self._done[place].text in _PAIRS) - (self._done[place].text in ("(", "[", "{"))
            place -= 1
        name = self._before(place)
        return name >= 0 and self._done[name].text in ("default", "d") and self._done[self._before(name)].text == "|"

    def _operand(self, end: int) -> list[_Token]:
        """The operand of a filter or test, including filters that are applied before."""
        start = self._start(end)
        before = self._before(start)
        while before >= 0 and self._done[before].text == "|":
            start = self._start(before)
            before = self._before(start)
        # `-1 | abs` is 1: a sign binds more tightly than a filter.
        if before >= 0 and self._done[before].text == "-" and not self._ends_value(self._before(before)):
            start = before
        if end - start > _LARGEST_OPERAND:
            raise Refusal("an expression is too large")
        return self._done[start:end]

    def _start(self, end: int) -> int:
        """Where the value that ends before `end` begins: a name, literal or bracket with its attributes and calls."""
        place = self._before(end)
        while place >= 0:
            if self._done[place].text in _PAIRS and self._done[place].kind == "sign":
                place = self._opening(place)
                before = self._before(place)
                if self._done[place].text in ("(", "[") and self._ends_value(before):
                    place = before
                    continue
            before = self._before(place)
            if before >= 0 and self._done[before].text == ".":
                place = self._before(before)
            elif before >= 0 and self._done[place].kind == self._done[before].kind == "string":
                place = before
            else:
                return place
        return 0

    def _opening(self, place: int) -> int:
        depth = 0
        while place >= 0:
            self._count_step_back()
            text = self._done[place].text if self._done[place].kind == "sign" else ""
            depth += (text in ("(", "[", "{")) - (text in _PAIRS)
            if depth == 0:
                return place
            place -= 1
        return 0

    def _ends_value(self, place: int) -> bool:
        if place < 0:
            return False
        kind, text = self._done[place]
        return kind in ("string", "number") or (text not in _KEYWORDS if kind == "name" else text in _PAIRS)

    def _before(self, place: int) -> int:
        """The place of the last token before `place` that is not white space; -1 if there is none."""
        self._count_step_back()
        place -= 1
        while place >= 0 and self._done[place].kind == "space":
            place -= 1
        return place

    def _count_step_back(self) -> None:
        self._steps_back += 1
        if self._steps_back > _MOST_STEPS_BACK:
            raise Refusal("an expression is too large")

    def _next(self, place: int) -> int:
        place += 1
        while place < len(self._tokens) and self._tokens[place].kind == "space":
            place += 1
        return place

    def _text(self, place: int) -> str:
        return self._tokens[place].text if place < len(self._tokens) else ""


def _tokens(*parts: str | _Token) -> list[_Token]:
    return [part if isinstance(part, _Token) else _Token("sign", part) for part in parts]
