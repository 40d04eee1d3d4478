"""Draws the folders and their order into docs/architecture.md: `python -m docs.draw_architecture` after a change.

What a folder holds is what its `__init__.py` says in its first line.
"""

from __future__ import annotations

import ast
from pathlib import Path

from tests.folder_order import ORDER

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
TOP = ("cli", "export", "runtime", "models")
INTRODUCTION = """# Architecture

<!-- Drawn by `python -m docs.draw_architecture`; a test compares. -->

Two stages, and one contract between them: `export/` turns a checkpoint into a bundle, `runtime/` runs it, and all that
the second knows of the first stands in the bundle's manifest.

    cli -> export -> models        cli -> runtime        export -> runtime

Each picture is read from top to bottom: a box may import what is below it, and boxes side by side do not import each
other. `tests/test_architecture.py` reads every import and holds the code to it.
"""


def summary(folder: str) -> str:
    """The first line of a folder's docstring, or of a module's."""
    path = ROOT / folder / "__init__.py"
    path = path if path.exists() else ROOT / f"{folder}.py"
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def picture(order: tuple[str, ...]) -> str:
    """Boxes of text, the last of an order on top."""
    rows = [group.split() for group in reversed(order)]
    width = max(sum(len(unit) + 4 for unit in row) for row in rows)
    lines = []
    for row in rows:
        cells, left = [], width
        for index, unit in enumerate(row):
            share = left // (len(row) - index)
            cells.append(unit.center(share - 2))
            left -= share
        lines.append("+" + "+".join("-" * (len(cell) + 1) for cell in cells) + "+")
        lines.append("|" + "|".join(f"{cell} " for cell in cells) + "|")
    lines.append("+" + "-" * (len(lines[-1]) - 2) + "+")
    return "\n".join(lines)


def page() -> str:
    """All of docs/architecture.md."""
    parts = [INTRODUCTION]
    folders = sorted(ORDER, key=lambda name: (TOP.index(name.split("/")[0]), name))
    for folder in folders:
        units = [unit for group in ORDER[folder] for unit in group.split()]
        table = [f"| `{unit}` | {summary(f'{folder}/{unit}')} |" for unit in reversed(units)]
        parts.append(
            f"## {folder}/\n\n{summary(folder)}\n\n```text\n{picture(ORDER[folder])}\n```\n\n"
            + "\n".join(["| | |", "|---|---|", *table])
            + "\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
