"""Which functions evaluate a line of a file, by the names that Python gives their code."""

from __future__ import annotations

import ast
from collections.abc import Iterator

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions_for(text: str, line: int) -> frozenset[str]:
    """The function that a line is in; of a line that an import runs, every function of the file, which may use it.

    Args:
        text: of the file.
        line: counted from 1.

    Returns:
        qualified names; none if the file has no functions.
    """
    functions = list(_functions(ast.parse(text), ""))
    around = [name for name, node in functions if node.body[0].lineno <= line <= (node.end_lineno or 0)]
    # The last is the innermost.
    return frozenset(around[-1:] or [name for name, _ in functions])


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, _Function]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _Function):
            yield prefix + child.name, child
            yield from _functions(child, f"{prefix}{child.name}.<locals>.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)
