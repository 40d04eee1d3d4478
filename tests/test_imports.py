"""The dependency rule, read from the source: one way, and nothing heavy on a device."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = {"torch", "transformers", "onnx", "onnxscript", "onnx_ir", "optimum", "scipy", "safetensors", "gguf"}
# Third-party packages each folder may import anywhere, and triform's own.
ALLOWED = {
    "runtime": (
        {"numpy", "onnxruntime", "tokenizers", "minijinja", "PIL", "soundfile", "soxr", "sacremoses", "sentencex"}
        | {"llguidance"},
        {"runtime"},
    ),
    "cli": ({"typer", "rich"}, {"runtime", "cli", "export"}),
    "models": ({"torch", "transformers", "optimum"}, {"models"}),
    "export": (
        {
            "numpy",
            "onnxruntime",
            "torch",
            "transformers",
            "optimum",
            "onnxscript",
            "onnx_ir",
            "gguf",
            "safetensors",
            "tokenizers",
            "PIL",
        },
        {"models", "runtime", "export"},
    ),
}


def imports(path, *, everywhere):
    """Modules a file imports: at any depth, or only those that importing the file would import."""
    found = []
    pending = list(ast.parse(path.read_text()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(node.module)
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        is_body = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if everywhere or not (typing_only or is_body):
            pending += list(ast.iter_child_nodes(node))
    return found


FILES = [(folder, path) for folder in ALLOWED for path in sorted((ROOT / folder).glob("*.py"))]


def test_there_is_something_to_check():
    assert {folder for folder, _ in FILES} == set(ALLOWED)
    assert len(FILES) > 30


@pytest.mark.parametrize(("folder", "path"), FILES, ids=lambda value: getattr(value, "name", value))
def test_a_file_imports_only_what_its_folder_may(folder, path):
    packages, own = ALLOWED[folder]
    for module in imports(path, everywhere=True):
        top, *rest = module.split(".")
        if top == "triform":
            assert not rest or rest[0] in own, module
        else:
            assert top in packages or top in sys.stdlib_module_names, module


@pytest.mark.parametrize(("folder", "path"), FILES, ids=lambda value: getattr(value, "name", value))
def test_nothing_heavy_at_import_time_on_a_device(folder, path):
    if folder not in ("runtime", "cli"):
        return
    for module in imports(path, everywhere=False):
        assert module.split(".")[0] not in HEAVY
        assert not module.startswith("triform.export")


def test_the_runtime_never_asks_what_architecture_it_runs():
    for path in (ROOT / "runtime").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("model_type", "architectures"), path


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from triform.cli.main import run; run(['--help']); run(['generate', '--help']); "
        f"print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
