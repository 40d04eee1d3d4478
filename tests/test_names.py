"""Public names: within a top folder each stands for one thing, so that a search for it finds that thing."""

from __future__ import annotations

import ast
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Names that several files of a folder must have, because other code calls them by that name.
SHARED = {
    # `cli/main.py` calls each command's `run`, and prints its HELP.
    "cli": {"HELP": "cli/commands/", "run": "cli/commands/"},
    # `export/pipeline.py` dispatches to the form of the bundle: each form has the same three functions.
    "export": {"load": "export/forms/", "plan": "export/forms/", "export": "export/forms/"},
}


def public_names(path):
    """The functions, classes and values at the top level of a file."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        else:
            names = []
        yield from (name for name in names if not name.startswith("_"))


def tracked(folder):
    listed = subprocess.run(["git", "ls-files", f"{folder}/*.py"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.split()


@pytest.mark.parametrize("folder", ["runtime", "models", "export", "cli"])
def test_a_public_name_stands_once_in_a_folder(folder):
    files = defaultdict(list)
    for file in tracked(folder):
        for name in public_names(ROOT / file):
            if not file.startswith(SHARED.get(folder, {}).get(name, "/")):
                files[name].append(file)
    assert {name: where for name, where in files.items() if len(where) > 1} == {}


@pytest.mark.parametrize(("folder", "name"), [(folder, name) for folder, names in SHARED.items() for name in names])
def test_no_exception_is_left_over(folder, name):
    under = SHARED[folder][name]
    assert sum(name in public_names(ROOT / file) for file in tracked(folder) if file.startswith(under)) > 1
