"""Which tests fit a file: those that import it, at first hand or through other files, and lie near its place."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_FOLDERS = ("cli", "export", "models", "runtime")
# It imports commands when they are used.
_COMMAND_TABLE = "triform.cli.command_table"


@cache
def tests_of(path: Path) -> tuple[str, ...]:
    """The files of tests that may reach a file, those that fit it best first; none if no test imports it.

    Two of each three are the next by name and by distance: the file's name in the folder of its name, then few imports
    and many folders shared. The third shares most of its folders, however it comes to the file, and words of its name.

    Args:
        path: of the file, from the root of the repository.
    """
    steps = _importers(_module(path))
    left = sorted((_distance(path, test, steps[_module(test)]), test) for test in _tests() if _module(test) in steps)
    nearest, chosen = [test for _, test in left], list[Path]()
    while nearest:
        third = len(chosen) % 3 == 2
        best = min(nearest, key=lambda test: (_apart(path, test), -_words_shared(path, test))) if third else nearest[0]
        nearest.remove(best)
        chosen.append(best)
    return tuple(map(str, chosen))


def _distance(path: Path, test: Path, steps: int) -> int:
    apart = _apart(path, test)
    named = path.stem in test.stem and apart == 0
    # Whoever imports a file itself tests more of it than neighbors do.
    return -1 if named else 3 * steps + apart


def _apart(path: Path, test: Path) -> int:
    """How many folders only one of the two lies in, or in the folder of the same name."""
    own, shared = ("tests", *path.parent.parts), 0
    for ours, theirs in zip(own, test.parent.parts, strict=False):
        if ours != theirs:
            break
        shared += 1
    return len(own) - shared + len(test.parent.parts) - shared


def _words_shared(path: Path, test: Path) -> int:
    return len({*path.stem.split("_"), path.parent.name} & {*test.stem.split("_"), test.parent.name})


def _importers(module: str) -> dict[str, int]:
    """How many imports lie between a module and each that imports it."""
    users, steps, now = _users(), {module: 0}, [module]
    while now:
        now = sorted({user for name in now for user in users[name]} - steps.keys())
        steps.update(dict.fromkeys(now, 1 + max(steps.values())))
    return steps


@cache
def _users() -> dict[str, set[str]]:
    """From a module to those that import it."""
    found = defaultdict(set)
    for name in _imported(ast.parse((ROOT / "src/triform/__init__.py").read_text(encoding="utf-8"))):
        found[name].add("triform")
    for path in [path.relative_to(ROOT) for folder in (*_FOLDERS, "tests") for path in (ROOT / folder).rglob("*.py")]:
        if path.parts[:2] == ("cli", "commands"):
            found[_module(path)].add(_COMMAND_TABLE)
        for name in _imported(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
            found[name].add(_module(path))
        if path.name.startswith("test_"):
            # What it gives the tests of its folder they use as if they imported it.
            found[_module(path.with_name("conftest.py"))].add(_module(path))
    return found


def _imported(tree: ast.Module) -> set[str]:
    """Names of modules; also of what lies in them, which may be modules."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{item.name}" for item in node.names)}
        elif isinstance(node, ast.Import):
            names |= {item.name for item in node.names}
    return names


def _module(path: Path) -> str:
    name = ".".join(path.with_suffix("").parts)
    return name if path.parts[0] == "tests" else f"triform.{name}"


@cache
def _tests() -> list[Path]:
    return sorted(path.relative_to(ROOT) for path in (ROOT / "tests").rglob("test_*.py"))
