"""The order of the folders, read from the source: one way, no circles, and nothing heavy on a device."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

from tests.folder_order import ORDER

ROOT = Path(__file__).parent.parent
FOLDERS = ("runtime", "models", "export", "cli")
HEAVY = {"torch", "transformers", "onnx", "onnxscript", "onnx_ir", "optimum", "scipy", "safetensors", "gguf"} | {
    "huggingface_hub"
}
# Packages of others that a folder may import anywhere, and folders of triform's own.
ALLOWED = {
    "runtime": (
        {"numpy", "onnxruntime", "tokenizers", "minijinja", "PIL", "soundfile", "soxr", "sacremoses", "sentencex", "av"}
        | {"llguidance", "jinja2", "cryptography", "zstandard", "jiwer", "sacrebleu", "lm_eval"}
        | {"pyarrow"},
        {"runtime"},
    ),
    "cli": ({"typer", "rich", "cyclonedx", "packageurl", "pyarrow", "ray"}, {"runtime", "cli", "export"}),
    "models": ({"torch", "transformers", "optimum"}, {"models"}),
    "export": (
        {"numpy", "onnxruntime", "torch", "transformers", "optimum", "onnxscript", "onnx_ir", "gguf", "safetensors"}
        | {"tokenizers", "PIL", "packaging", "huggingface_hub", "jinja2", "matplotlib"},
        {"models", "runtime", "export"},
    ),
}
# The only places that run ONNX graphs.
ONNXRUNTIME = ("runtime/graphs/", "export/runners.py")
# Pairs to the contrary.
NEVER = {("runtime/generation", "runtime/graphs"), ("runtime/generation", "runtime/media")} | {
    ("runtime/encoder", "runtime/generation")
}
MODULES_A_FOLDER = 12
LINES_A_FILE = 400


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
            # `from triform.models import catalog` imports a module by a name.
            found += [f"{node.module}.{alias.name}" for alias in node.names if is_module(f"{node.module}.{alias.name}")]
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        is_body = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if everywhere or not (typing_only or is_body):
            pending += list(ast.iter_child_nodes(node))
    return found


def location(module):
    """`runtime/graphs/cache` of `triform.runtime.graphs.cache`."""
    return module.removeprefix("triform.").replace(".", "/")


def is_module(module):
    return module.startswith("triform.") and (
        (ROOT / f"{location(module)}.py").is_file() or (ROOT / location(module) / "__init__.py").is_file()
    )


FILES = [path.relative_to(ROOT) for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
# Each file, as `runtime/graphs/cache`, with the files of triform that it imports anywhere.
EDGES = {
    str(path.with_suffix("")): {
        location(module) for module in imports(ROOT / path, everywhere=True) if is_module(module)
    }
    for path in FILES
}


def units(order):
    return [unit for group in order for unit in group.split()]


def test_every_file_is_checked():
    tracked = subprocess.run(
        ["git", "ls-files", "--", *(f"{folder}/*.py" for folder in FOLDERS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {str(path) for path in FILES} >= set(tracked.stdout.split())
    assert any(len(path.parts) == 4 for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_imports_only_what_its_folder_may(path):
    packages, own = ALLOWED[path.parts[0]]
    for module in imports(ROOT / path, everywhere=True):
        top, *rest = module.split(".")
        if top == "triform":
            assert not rest or rest[0] in own, module
        else:
            assert top in packages or top in sys.stdlib_module_names, module
            assert top != "onnxruntime" or str(path).startswith(ONNXRUNTIME), "only runtime/graphs runs graphs"


@pytest.mark.parametrize("folder", ORDER)
def test_what_a_folder_holds_is_in_its_order(folder):
    held = {
        entry.stem for entry in (ROOT / folder).iterdir() if entry.suffix == ".py" or (entry / "__init__.py").exists()
    }
    assert set(units(ORDER[folder])) == held - {"__init__"}


@pytest.mark.parametrize("folder", ORDER)
def test_imports_follow_the_order(folder):
    rank = {unit: place for place, group in enumerate(ORDER[folder]) for unit in group.split()}
    depth = len(Path(folder).parts)

    def unit(file):
        parts = Path(file).parts
        return parts[depth] if file.startswith(f"{folder}/") and parts[depth] in rank else None

    wrong = [
        f"{file} imports {other}"
        for file, others in EDGES.items()
        for other in others
        if unit(file) and unit(other) and unit(file) != unit(other) and rank[unit(other)] >= rank[unit(file)]
    ]
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.parametrize(("above", "below"), sorted(NEVER))
def test_folders_that_do_not_know_each_other(above, below):
    wrong = [
        (file, other)
        for file, others in EDGES.items()
        for other in others
        if file.startswith(f"{above}/") and f"{other}/".startswith(f"{below}/")
    ]
    assert not wrong


def test_no_circle_of_files():
    files = {file: {other for other in others if other in EDGES} for file, others in EDGES.items()}
    try:
        list(TopologicalSorter(files).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("folder", sorted({str(path.parent) for path in FILES}))
def test_a_folder_shows_what_it_holds(folder):
    modules = [path for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"]
    assert len(modules) <= MODULES_A_FOLDER
    text = (ROOT / folder / "__init__.py").read_text()
    body = ast.parse(text).body
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring and "May import" in docstring and "first" in docstring
    # Two packages hand on what their users hold: `triform` itself, and this one for those who export.
    assert len(body) == 1 or folder == "export", "an __init__.py is a docstring"


@pytest.mark.parametrize("path", FILES, ids=str)
def test_a_file_is_not_too_long(path):
    assert len((ROOT / path).read_text().splitlines()) <= LINES_A_FILE


def test_every_folder_is_listed_for_the_wheel():
    """In order; a folder that is not listed is missing wherever triform is installed from a wheel."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = sorted({str(path.parent).replace("/", ".") for path in FILES})
    assert setuptools["packages"] == ["triform", *(f"triform.{folder}" for folder in folders)]


def test_no_private_name_is_imported():
    for path in FILES:
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.ImportFrom):
                assert not any(alias.name.startswith("_") and alias.name != "__version__" for alias in node.names), path


def test_tests_mirror_the_folders():
    """What has tests of its own has them in the folder of its name."""
    # Attacks and mutations go through all folders at once.
    helpers = {"tests/checkpoints", "tests/helpers", "tests/attacks", "tests/mutation"}
    for path in chain((ROOT / "tests").rglob("test_*.py")):
        folder = path.parent.relative_to(ROOT / "tests")
        known = str(folder) == "." or (ROOT / folder).is_dir() or f"tests/{folder}" in helpers
        assert known or str(folder) == "runtime/encoder/images", folder


@pytest.mark.parametrize("path", [path for path in FILES if path.parts[0] in ("runtime", "cli")], ids=str)
def test_nothing_heavy_at_import_time_on_a_device(path):
    for module in imports(ROOT / path, everywhere=False):
        assert module.split(".")[0] not in HEAVY
        assert not module.startswith("triform.export")


def test_the_runtime_never_asks_what_architecture_it_runs():
    for path in (ROOT / "runtime").rglob("*.py"):
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


def test_the_picture_of_the_folders_is_up_to_date():
    from docs.draw_architecture import PAGE, page

    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m docs.draw_architecture"
