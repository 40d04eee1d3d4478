"""Packs bundles, the wheels that run them and an installer into one archive, for devices without a network."""

from __future__ import annotations

import errno
import hashlib
import re
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.verification import verify_files
from triform.runtime.errors import InputError, option
from triform.runtime.extras import missing_extra
from triform.runtime.files import followed, whole_file
from triform.runtime.supply_chain.device_files import INSTALL_SH, LAUNCHER, LEFT_OUT, MINIMAL, install_py, readme
from triform.runtime.supply_chain.wheels import fetch_wheels
from triform.runtime.unfinished import unfinished

_FORMATS = {".tar.gz": "gz", ".tar.xz": "xz", ".tar.zst": "zst", ".tar": ""}
_PROCESSOR = re.compile(r"(x86_64|aarch64|armv7l|i686|ppc64le|s390x|arm64|amd64)$")
_EXECUTABLE, _READABLE = 0o755, 0o644


@dataclass(frozen=True)
class Pack:
    """What is packed for which device.

    Attributes:
        bundles: at least one, with different names.
        wheel: triform's own.
        platform: a tag of wheels, such as manylinux_2_28_aarch64.
        python: such as 3.11.
        extras: of triform, such as image.
        minimal: whether to leave out what a device does without.
    """

    bundles: Sequence[Bundle]
    wheel: Path
    platform: str
    python: str
    extras: Sequence[str] = ()
    minimal: bool = False

    def __post_init__(self) -> None:
        names = [bundle.folder.resolve().name for bundle in self.bundles]
        if len(set(names)) < len(names):
            raise InputError(f"two bundles have the name {max(names, key=names.count)}; rename one of them")
        if re.fullmatch(r"3\.\d{1,2}", self.python) is None:
            raise InputError(f"{option('python')} must be a version such as 3.11, not {self.python}")
        if not self.wheel.is_file() or self.wheel.suffix != ".whl":
            raise InputError(f"{option('wheel')} {self.wheel} is no wheel; `make wheel` makes triform's in dist/")


def write_pack(pack: Pack, output: Path) -> int:
    """Write the archive: whole, or not at all.

    Args:
        pack: what is in it.
        output: ends in .tar, .tar.gz, .tar.xz or .tar.zst.

    Returns:
        its size in bytes.

    Raises:
        BundleError: a file of a bundle is damaged.
        InputError: a package has no wheel for the platform, or the archive cannot be written.
        UnsupportedError: pip, or zstandard for .tar.zst, is not installed.
    """
    suffix = next((suffix for suffix in _FORMATS if output.name.endswith(suffix)), None)
    if suffix is None:
        raise InputError(f"{option('output')} must end in {', '.join(_FORMATS)}, not {output.name}")
    for bundle in pack.bundles:
        verify_files(bundle)
    top = output.name.removesuffix(suffix)
    # Beside the output, where the next start finds what a killed process left; and a device's /tmp may be small.
    with whole_file(output) as file, unfinished(followed(output), Path.mkdir) as scratch:
        folder = scratch / top
        with _full_disk_names(output):
            _fill(pack, folder)
        with _compressed(file, _FORMATS[suffix]) as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
            archive.add(folder, top, filter=_plain)
    return output.stat().st_size


@contextmanager
def _full_disk_names(output: Path) -> Iterator[None]:
    """Name the output in the error for a full disk; copying a file names the one that it reads."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise OSError(error.errno, error.strerror, str(output)) from None
        raise


def _fill(pack: Pack, folder: Path) -> None:
    (folder / "wheels").mkdir(parents=True)
    fetch_wheels(pack.wheel, pack.extras, pack.platform, pack.python, folder / "wheels")
    if pack.minimal:
        for wheel in (folder / "wheels").glob("*.whl"):
            if wheel.name.split("-")[0].lower() in LEFT_OUT:
                wheel.unlink()
    names = []
    for bundle in pack.bundles:
        names.append(bundle.folder.resolve().name)
        (folder / "bundles" / names[-1]).mkdir(parents=True)
        for path in sorted(bundle.folder.iterdir()):
            if path.is_file():
                shutil.copyfile(path, folder / "bundles" / names[-1] / path.name)
    found = _PROCESSOR.search(pack.platform)
    texts = {
        "install.sh": INSTALL_SH,
        "install.py": install_py(pack.python, found[0] if found else "", MINIMAL if pack.minimal else ()),
        "triform": LAUNCHER,
        "README.txt": readme(names, pack.python, pack.platform),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    sums = [
        f"{_digest(path)}  {path.relative_to(folder).as_posix()}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    ]
    (folder / "SHA256SUMS").write_text("\n".join(sums) + "\n", encoding="utf-8")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """An entry without the names and the clock of this machine: the same content gives the same archive."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    executable = info.isdir() or info.name.endswith((".sh", "/triform"))
    info.mode = _EXECUTABLE if executable else _READABLE
    return info


@contextmanager
def _compressed(file: BinaryIO, kind: str) -> Iterator[Any]:
    if kind == "zst":
        try:
            import zstandard
        except ImportError:
            raise missing_extra("a .tar.zst file needs zstandard", "pack") from None
        with zstandard.ZstdCompressor(level=10, threads=-1).stream_writer(file, closefd=False) as stream:
            yield stream
    elif kind == "xz":
        import lzma

        with lzma.open(file, "wb") as stream:
            yield stream
    elif kind == "gz":
        import gzip

        with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as stream:
            yield stream
    else:
        yield file
