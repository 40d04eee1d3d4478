"""Small changes of one Python file that a slip of the pen could make, each as the text of the whole file.

Not mutmut or cosmic-ray: both import the package from where its files lie, and here `triform.runtime` lies in
`runtime/`, by a table in pyproject.toml.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARISONS = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
_OPERATORS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv}


@dataclass(frozen=True)
class Mutation:
    """One change.

    Attributes:
        line: where it is.
        before: the expression.
        after: what it became.
        text: of the whole file, with the change.
    """

    line: int
    before: str
    after: str
    text: str


def mutations(text: str) -> Iterator[Mutation]:
    """All mutations of a file, in its order.

    Those inside annotations and docstrings are left out, and so is ``strict=True`` of ``zip``, which guards lengths
    that are equal wherever the code is right.
    """
    lines = text.splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.encode()))
    data = text.encode()
    for node in _expressions(ast.parse(text)):
        for changed in _changes(node):
            begin = starts[node.lineno - 1] + node.col_offset
            end = starts[node.end_lineno - 1] + node.end_col_offset
            after = f"({changed})"
            mutated = data[:begin] + after.encode() + data[end:]
            yield Mutation(node.lineno, data[begin:end].decode(), after, mutated.decode())


def _expressions(tree: ast.Module) -> Iterator[ast.expr]:
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop(0)
        if isinstance(node, ast.expr):
            yield node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "type_params", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                # Parts of f-strings have no place of their own in older Pythons.
                if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr) and not _is_guard(node, child):
                    pending.append(child)


def _is_guard(node: ast.AST, child: ast.AST) -> bool:
    called = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip"
    return called and isinstance(child, ast.keyword) and ast.unparse(child) == "strict=True"


def _changes(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARISONS:
        yield ast.unparse(ast.Compare(node.left, [_COMPARISONS[type(node.ops[0])]()], node.comparators))
    elif isinstance(node, ast.BoolOp):
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield ast.unparse(ast.BoolOp(other, node.values))
        yield ast.unparse(ast.BoolOp(node.op, node.values[1:]) if len(node.values) > 2 else node.values[1])
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS and not _is_text(node):
        yield ast.unparse(ast.BinOp(node.left, _OPERATORS[type(node.op)](), node.right))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield ast.unparse(node.operand)
    elif isinstance(node, ast.IfExp):
        yield ast.unparse(node.orelse)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield str(node.value + 1)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield str(not node.value)


def _is_text(node: ast.BinOp) -> bool:
    return any(
        isinstance(side, ast.Constant | ast.JoinedStr) and not isinstance(getattr(side, "value", ""), int | float)
        for side in (node.left, node.right)
    )
