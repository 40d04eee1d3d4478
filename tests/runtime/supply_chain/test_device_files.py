"""The installer of a pack, run by itself: what it unpacks, leaves out and refuses."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import zipfile

import pytest

from triform.runtime.supply_chain.device_files import INSTALL_SH, LAUNCHER, MINIMAL, install_py, readme

VERSION = ".".join(map(str, sys.version_info[:2]))
OTHER = "3.1"


@pytest.fixture
def pack(tmp_path):
    """A function that makes a folder with wheels of these names and files, and installs it."""

    def make(wheels, *, python=VERSION, processor="", skipped=(), damaged=False):
        (tmp_path / "wheels").mkdir(exist_ok=True)
        sums = []
        for wheel, files in wheels.items():
            path = tmp_path / "wheels" / wheel
            with zipfile.ZipFile(path, "w") as archive:
                for name in files:
                    archive.writestr(name, "" if name.endswith("/") else f"# {name}")
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            sums.append(f"{digest}  wheels/{wheel}")
            if damaged:
                path.write_bytes(path.read_bytes() + b"x")
        (tmp_path / "SHA256SUMS").write_text("\n".join(sums) + "\n")
        (tmp_path / "install.py").write_text(install_py(python, processor, skipped))
        return subprocess.run(
            [sys.executable, "-I", tmp_path / "install.py"], capture_output=True, text=True, check=False
        )

    return make


def installed(folder):
    site = folder / "site"
    return sorted(path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file())


def test_what_is_imported_is_unpacked(pack, tmp_path):
    done = pack({
        "a-1.whl": ["a/__init__.py", "a/deep/b.py", "a/empty/", "a-1.data/purelib/pure.py", "a-1.data/scripts/run"],
        "b-1.whl": ["b-1.data/platlib/flat/c.py", "b-1.data/headers/d.h", "b.data.py"],
    })  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"installed in {tmp_path / 'site'}; run {tmp_path / 'triform'}\n"
    assert installed(tmp_path) == ["a/__init__.py", "a/deep/b.py", "b.data.py", "flat/c.py", "pure.py"]
    assert (tmp_path / "site/flat/c.py").read_text() == "# b-1.data/platlib/flat/c.py"
    assert not (tmp_path / "site.unfinished").exists()


def test_what_was_installed_before_goes(pack, tmp_path):
    pack({"a-1.whl": ["a.py", "old.py"]})
    # What an interrupted run left.
    (tmp_path / "site.unfinished").mkdir()
    (tmp_path / "site.unfinished/left.py").write_text("")
    assert pack({"a-1.whl": ["a.py"]}).returncode == 0
    assert installed(tmp_path) == ["a.py"]


def test_minimal_leaves_out_what_a_device_does_without(pack, tmp_path):
    kept = [
        "onnxruntime/__init__.py", "onnxruntime/capi/pybind.so", "numpy/core.py", "a/testing.py", "contest/b.py",
        "tqdm_like.py", "idnas/x.py", "a/yaml.py",
    ]  # fmt: skip
    dropped = [
        "onnxruntime/transformers/x.py", "onnxruntime/tools/x.py", "onnxruntime/capi/libonnxruntime.so.1",
        "a/tests/x.py", "test/x.py", "a/x.pyi", "tqdm/x.py", "yaml.py", "hf_xet-1.dist-info/METADATA",
        "numpy/f2py/x.py",
    ]  # fmt: skip
    assert pack({"a-1.whl": kept + dropped}, skipped=MINIMAL).returncode == 0
    assert installed(tmp_path) == sorted(kept)


@pytest.mark.parametrize("name", ["../out.py", "a/../../out.py", "/tmp/out-of-the-pack.py"])
def test_a_wheel_that_writes_elsewhere(pack, tmp_path, name):
    done = pack({"a-1.whl": ["a.py", name]})
    assert done.returncode == 1 and done.stderr == f"error: a-1.whl is unsafe: it names {name}\n"
    assert not (tmp_path / "site").exists() and not (tmp_path / "out.py").exists()


def test_what_does_not_fit_this_machine(pack, tmp_path):
    done = pack({}, python=OTHER)
    assert done.returncode == 1
    assert (
        done.stderr
        == f"error: this pack is for Python {OTHER}, and this is {VERSION}: name another by PYTHON=python{OTHER}\n"
    )
    platform = sysconfig.get_platform()
    done = pack({}, processor="abacus")
    assert (done.returncode, done.stderr) == (1, f"error: this pack is for abacus, and this machine is {platform}\n")
    (tmp_path / "site.unfinished").mkdir()
    done = pack({"a-1.whl": ["a.py"]}, processor=platform[-4:])
    assert done.returncode == 0


def test_damaged_and_missing_files_are_named(pack, tmp_path):
    done = pack({"a-1.whl": ["a.py"]}, damaged=True)
    assert (done.returncode, done.stderr) == (1, "error: wheels/a-1.whl is missing or damaged: copy the pack again\n")
    assert not (tmp_path / "site").exists()
    (tmp_path / "wheels/a-1.whl").unlink()
    done = subprocess.run([sys.executable, tmp_path / "install.py"], capture_output=True, text=True, check=False)
    assert done.stderr == "error: wheels/a-1.whl is missing or damaged: copy the pack again\n"


def test_scripts_find_what_lies_beside_them(tmp_path):
    """They are run from another folder; PYTHON names the interpreter."""
    folder = tmp_path / "a pack"
    (folder / "site/triform").mkdir(parents=True)
    (folder / "site/triform/__main__.py").write_text("import sys; print(sys.argv[1:])")
    (folder / "install.py").write_text("import os; print(os.getcwd())")
    (folder / "install.sh").write_text(INSTALL_SH)
    (folder / "triform").write_text(LAUNCHER)
    for script, said in (("install.sh", str(folder)), ("triform", "['a b', 'c']")):
        environment = {"PYTHON": sys.executable, "PATH": "/bin:/usr/bin"}
        command = ["sh", folder / script, "a b", "c"]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            cwd="/",
            env=environment,
        )
        assert done.stdout == said + "\n"


def test_the_readme_names_the_first_bundle():
    text = readme(iter(["one", "two"]), "3.12", "manylinux")
    assert "./triform inspect bundles/one\n" in text and "Bundles: one, two." in text
    assert text.startswith("For Python 3.12 on manylinux.")
