"""Docstrings and comments name only modules, functions, classes, parameters and files that exist.

Names of this project stand in `backticks`; literals, and names of other projects, in ``two``, which are not checked.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("runtime", "models", "export", "cli")
FILES = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
LITERAL = re.compile(r"``.+?``", re.DOTALL)
QUOTED = re.compile(r"`([^`\n]+)`")
PYTHON_FILE = re.compile(r"[\w./-]*\w\.py\b")
# A name, or several with dots between them, as `triform.load`, `Decoder.generate()` or `hidden_states.{i}`.
NAME = re.compile(r"[A-Za-z_]\w*(\.(\w+|\{\w+\}))*(\(\))?")


@cache
def tracked() -> tuple[str, ...]:
    """Paths of all files, and of the folders that hold them."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {str(parent) for path in listed for parent in Path(path).parents}
    return (*listed, *sorted(folders - {"."}))


def docstrings(tree: ast.Module) -> list[ast.Constant]:
    """The docstrings of a module and of everything in it."""
    constants = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                constants.append(first.value)
    return constants


def comments(text: str) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]


def names_of(tree: ast.Module) -> set[str]:
    """Every name in the code, and those in its strings without spaces, such as keys; docstrings do not count."""
    prose = {id(node) for node in docstrings(tree)}
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                names.add(name)
            case ast.alias(name=name):
                names.update(name.split("."))
            case ast.Constant(value=str(value)) if id(node) not in prose and " " not in value:
                names.update([value, *re.findall(r"\w+", value)])
    return names


@cache
def known() -> frozenset[str]:
    modules = {part for path in FILES for part in path.relative_to(ROOT).with_suffix("").parts}
    used = (names_of(ast.parse(path.read_text())) for path in FILES)
    return frozenset(modules.union(*used))


def is_file(name: str) -> bool:
    return any(path == name or path.endswith(f"/{name}") for path in tracked())


def exists(quoted: str) -> bool:
    """Whether a name or path exists. Anything else in backticks, such as a command or a formula, is not checked."""
    if is_file(quoted.rstrip("/")):
        return True
    if "/" in quoted and re.fullmatch(r"[\w./-]+", quoted):
        return quoted in known()
    if not NAME.fullmatch(quoted):
        return True
    parts = quoted.removesuffix("()").split(".")
    return quoted in known() or all(part in known() for part in parts if not part.startswith("{"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_named_exists(path):
    text = path.read_text()
    docs = [str(node.value) for node in docstrings(ast.parse(text))]
    prose = LITERAL.sub("", "\n".join([*docs, *comments(text)]))
    missing = {name for name in QUOTED.findall(prose) if not exists(name)}
    missing |= {name for name in PYTHON_FILE.findall(prose) if not is_file(name)}
    assert not missing


def test_the_check_finds_what_is_missing():
    assert exists("Decoder.generate()") and exists("export/graph/linear.py") and exists("past_key_values.{i}")
    assert not exists("quantise") and not exists("export/graph/quantize.py") and not exists("Decoder.regenerates")
