"""Packs of small wheels, made, unpacked and installed here; pip finds the wheels in a folder and asks no index."""

from __future__ import annotations

import errno
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
import zstandard

from triform.runtime.bundle.folder import open_bundle
from triform.runtime.errors import BundleError, InputError
from triform.runtime.supply_chain import wheels
from triform.runtime.supply_chain.packing import Pack, write_pack
from triform.runtime.supply_chain.wheels import platform_tags

HERE = ".".join(map(str, sys.version_info[:2]))
PLATFORM = "manylinux_2_28_x86_64"
# Python 3.11.2, which Debian 12 has, does not know the argument yet.
_SAFELY = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


def wheel(folder, name, files, tag="py3-none-any", requires=()):
    path = folder / f"{name}-1.0-{tag}.whl"
    metadata = "".join(
        [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", *(f"Requires-Dist: {r}\n" for r in requires)]
    )
    info = {"METADATA": metadata, "WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n", "RECORD": ""}
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in [*files.items(), *((f"{name}-1.0.dist-info/{k}", v) for k, v in info.items())]:
            archive.writestr(file, text)
    return path


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A wheel called triform, which prints its arguments, and what it needs for two processors."""
    index = tmp_path / "index"
    index.mkdir()
    for tag in ("cp310-abi3-manylinux_2_17_x86_64", "cp310-abi3-manylinux_2_28_aarch64"):
        files = {"kernel/__init__.py": f"TAG = {tag!r}", "kernel/tests/test_it.py": "", "kernel/it.pyi": ""}
        wheel(index, "kernel", files, tag)
    wheel(index, "hf_xet", {"hf_xet.py": ""})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    main = "import sys, kernel; print(kernel.TAG, sys.argv[1:])"
    return wheel(
        tmp_path, "triform", {"triform/__init__.py": "", "triform/__main__.py": main}, requires=["kernel", "hf_xet"]
    )


def pack_of(float_bundle, own, **changes):
    settings = {"bundles": [open_bundle(float_bundle)], "wheel": own, "platform": PLATFORM, "python": HERE}
    return Pack(**{**settings, **changes})


def unpacked(path, folder):
    with tarfile.open(path) as archive:
        archive.extractall(folder, **_SAFELY)
    return folder / path.name.split(".")[0]


def run(*command):
    environment = {**os.environ, "PYTHON": sys.executable}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_pack_is_installed_and_runs(float_bundle, own, tmp_path):
    output = tmp_path / "app.tar.gz"
    assert write_pack(pack_of(float_bundle, own), output) == output.stat().st_size
    folder = unpacked(output, tmp_path / "device")
    done = run("sh", folder / "install.sh")
    assert (done.returncode, done.stderr) == (0, "")
    # The older tag of the same processor is taken.
    assert run(folder / "triform", "a b").stdout == "cp310-abi3-manylinux_2_17_x86_64 ['a b']\n"
    assert (folder / "site" / "kernel" / "it.pyi").exists()
    copied = folder / "bundles" / float_bundle.name
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == {
        path.name: path.read_bytes() for path in float_bundle.iterdir()
    }
    assert open_bundle(copied).manifest == open_bundle(float_bundle).manifest
    # Another user than the one who unpacks it can read everything, and run what is to be run.
    with tarfile.open(output) as archive:
        modes = {os.path.basename(member.name): oct(member.mode) for member in archive.getmembers()}
    assert {modes[name] for name in ("manifest.json", "decoder.onnx", "README.txt")} == {"0o644"}
    assert {modes[name] for name in ("install.sh", "triform", "bundles", copied.name)} == {"0o755"}


def test_a_minimal_pack_leaves_out_what_a_device_does_without(float_bundle, own, tmp_path):
    write_pack(pack_of(float_bundle, own, minimal=True), tmp_path / "app.tar.xz")
    folder = unpacked(tmp_path / "app.tar.xz", tmp_path / "device")
    assert sorted(path.name.split("-")[0] for path in (folder / "wheels").iterdir()) == ["kernel", "triform"]
    assert run("sh", folder / "install.sh").returncode == 0
    assert not (folder / "site" / "kernel" / "it.pyi").exists()
    assert not (folder / "site" / "kernel" / "tests").exists()
    assert run(folder / "triform").returncode == 0


def test_zstandard_and_another_processor(float_bundle, own, tmp_path):
    write_pack(pack_of(float_bundle, own, platform="manylinux_2_28_aarch64"), tmp_path / "app.tar.zst")
    with (tmp_path / "app.tar.zst").open("rb") as file:
        content = io.BytesIO(zstandard.ZstdDecompressor().stream_reader(file).read())
    with tarfile.open(fileobj=content) as archive:
        names = archive.getnames()
        archive.extractall(tmp_path / "device", **_SAFELY)
    assert "app/wheels/kernel-1.0-cp310-abi3-manylinux_2_28_aarch64.whl" in names
    done = run("sh", tmp_path / "device" / "app" / "install.sh")
    assert done.returncode == 1
    assert done.stderr.startswith("error: this pack is for aarch64, and this machine is linux-x86_64")


def test_the_same_content_gives_the_same_archive(float_bundle, own, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_pack(pack_of(float_bundle, own), tmp_path / name / "app.tar.gz")
    assert (tmp_path / "one" / "app.tar.gz").read_bytes() == (tmp_path / "two" / "app.tar.gz").read_bytes()


@pytest.mark.parametrize(
    "name", ["wheels/triform-1.0-py3-none-any.whl", "bundles/{bundle}/decoder.onnx.data", "triform"]
)
def test_a_damaged_file_is_not_installed(float_bundle, own, tmp_path, name):
    write_pack(pack_of(float_bundle, own), tmp_path / "app.tar")
    folder = unpacked(tmp_path / "app.tar", tmp_path / "device")
    damaged = folder / name.format(bundle=float_bundle.name)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    done = run("sh", folder / "install.sh")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"{damaged.relative_to(folder)} is missing or damaged" in done.stderr
    assert not (folder / "site").exists()


def test_another_python_is_told(float_bundle, own, tmp_path):
    write_pack(pack_of(float_bundle, own, python="3.99"), tmp_path / "app.tar")
    done = run("sh", unpacked(tmp_path / "app.tar", tmp_path / "device") / "install.sh")
    assert (
        done.stderr == f"error: this pack is for Python 3.99, and this is {HERE}: name another by PYTHON=python3.99\n"
    )


def test_a_full_disk_names_the_output(float_bundle, own, tmp_path, monkeypatch):
    def fail(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(source), None, str(target))

    monkeypatch.setattr(shutil, "copyfile", fail)
    output = tmp_path / "out" / "app.tar"
    output.parent.mkdir()
    with pytest.raises(OSError, match="No space") as caught:
        write_pack(pack_of(float_bundle, own), output)
    assert caught.value.filename == str(output)
    assert list(output.parent.iterdir()) == []


def test_why_pip_failed(float_bundle, own, tmp_path, monkeypatch):
    """On a full disk it prints a traceback."""
    said = "ERROR: Exception:\nTraceback (most recent call last):\n  ...\nOSError: [Errno 28] No space left on device\n"
    failed = subprocess.CompletedProcess([], 2, stdout="", stderr=said)
    monkeypatch.setattr(wheels.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(InputError, match=r"^pip cannot fetch the wheels: OSError: \[Errno 28\] No space left on"):
        write_pack(pack_of(float_bundle, own), tmp_path / "app.tar")


def test_a_platform_without_wheels_is_named_and_nothing_is_written(float_bundle, own, tmp_path):
    output = tmp_path / "app.tar.gz"
    with pytest.raises(
        InputError, match=r"kernel has no wheel for .*platform.* manylinux_2_28_riscv64 and .*python.* 3\."
    ):
        write_pack(pack_of(float_bundle, own, platform="manylinux_2_28_riscv64"), output)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("app")] == []


def test_what_cannot_be_packed(float_bundle, own, own_bundle, tmp_path):
    with pytest.raises(InputError, match=r"must end in .*not app\.zip"):
        write_pack(pack_of(float_bundle, own), tmp_path / "app.zip")
    with pytest.raises(InputError, match="is no wheel"):
        pack_of(float_bundle, tmp_path)
    with pytest.raises(InputError, match=r"must be a version such as 3\.11, not 3"):
        pack_of(float_bundle, own, python="3")
    with pytest.raises(InputError, match=f"two bundles have the name {float_bundle.name}"):
        pack_of(float_bundle, own, bundles=[open_bundle(float_bundle)] * 2)
    bundle = open_bundle(own_bundle)
    data = bytearray((own_bundle / "decoder.onnx.data").read_bytes())
    data[5] ^= 1
    (own_bundle / "decoder.onnx.data").write_bytes(data)
    with pytest.raises(BundleError, match="damaged"):
        write_pack(pack_of(float_bundle, own, bundles=[bundle]), tmp_path / "app.tar")


def test_tags_of_older_systems():
    assert platform_tags("macosx_14_0_arm64") == ["macosx_14_0_arm64"]
    tags = platform_tags("manylinux_2_28_aarch64")
    assert tags[0] == "manylinux_2_28_aarch64"
    assert tags[-2:] == ["manylinux_2_17_aarch64", "manylinux2014_aarch64"]
