"""What `import triform` gives, and that documentation, benchmarks and examples need nothing else of the runtime."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import triform
import triform.export
from tests.helpers.documentation import BLOCKS, ROOT

SCRIPTS = [
    path.relative_to(ROOT)
    for path in sorted([*(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "examples").rglob("*.py")])
]
# What may be imported of triform: users' names from `triform`, those of an export from `triform.export`.
PUBLIC = ("triform", "triform.export")


@pytest.mark.parametrize("package", [triform, triform.export], ids=lambda package: package.__name__)
def test_every_public_name_is_there(package):
    assert len(set(package.__all__)) == len(package.__all__)
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.parametrize("package", [triform, triform.export], ids=lambda package: package.__name__)
def test_type_checkers_see_the_same_names(package):
    """Each is imported under TYPE_CHECKING from where it is fetched at run time."""
    (block,) = [node for node in ast.parse(Path(package.__file__).read_text()).body if isinstance(node, ast.If)]
    declared = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module.startswith("triform")
        for alias in node.names
    }
    assert set(declared) == set(package.__all__) - {"__version__"}
    for name, module in declared.items():
        assert getattr(package, name) is getattr(sys.modules[module], name)


@pytest.mark.parametrize("module", ["triform", "triform.export"])
def test_importing_is_cheap(module):
    code = f"import {module}, sys; dir({module}); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(done.stdout)
    assert not {"numpy", "onnxruntime", "tokenizers", "torch", "typer"} & set(loaded)
    assert [name for name in loaded if name.startswith("triform")] == sorted({"triform", module})


def imported(source):
    """Every (module, name) of triform that source text imports; the name is None for a whole module."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [(node.module, alias.name) for alias in node.names]
    return [(module, name) for module, name in found if module.split(".")[0] == "triform"]


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_documentation_imports_public_names_only(block):
    for module, name in imported(block.source):
        assert module in PUBLIC
        assert name is None or name in sys.modules[module].__all__


@pytest.mark.parametrize("path", SCRIPTS, ids=str)
def test_scripts_import_public_names_only(path):
    for module, name in imported((ROOT / path).read_text()):
        assert module in PUBLIC
        assert name is None or name in sys.modules[module].__all__
