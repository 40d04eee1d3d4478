"""A bundle on disk: opened, checked, and refused when anything in it is unsafe or not as the manifest says.

An .onnx file names its weight files itself. Where those may be is left to onnxruntime, which resolves links and refuses
absolute paths and everything outside the model's folder (tried with 1.24 and 1.31).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from triform.runtime.bundle.manifest import MANIFEST, GraphInfo, Manifest
from triform.runtime.bundle.reading import read_manifest
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import BundleError


@dataclass(frozen=True)
class Bundle:
    """A folder whose files are all there, of the sizes the manifest gives."""

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Where the file `name` is.

        Raises:
            BundleError: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise BundleError(f"{self.folder} lists no file {name}; export the model again")
        return self.folder / name

    @property
    def tokenizer(self) -> TokenizerInfo:
        """The tokenizer's entry in the manifest.

        Raises:
            BundleError: there is none.
        """
        info = self.manifest.tokenizer
        if info is None:
            raise BundleError(f"{self.folder} has no tokenizer; export the model again")
        return info

    def graph(self, name: str) -> tuple[Path, GraphInfo]:
        """The ONNX file of graph `name` and its entry in the manifest.

        Raises:
            BundleError: there is no such graph.
        """
        info = self.manifest.graphs.get(name)
        if info is None:
            raise BundleError(f"{self.folder} has no {name} graph; export the model again")
        return self.path(info.file), info


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle: read its manifest, check that names are safe and that every file has its size.

    Raises:
        BundleError: the folder is missing or is not a bundle, a name is unsafe, a file is missing or of another size.
    """
    folder = Path(path)
    try:
        return _open_folder(folder)
    except OSError as error:
        raise BundleError(f"{error.filename or folder} cannot be read: {error.strerror or error}") from None


def _open_folder(folder: Path) -> Bundle:
    if not folder.is_dir():
        what = "is a file, not a bundle folder" if folder.exists() else "does not exist"
        raise BundleError(f"{folder} {what}; make one with `triform export`")
    _refuse_link(folder, MANIFEST)
    manifest = read_manifest(folder)
    for name, info in manifest.files.items():
        _check_name(folder, name)
        _refuse_link(folder, name)
        file = folder / name
        if not file.is_file():
            raise BundleError(f"{file} is missing; copy the bundle again or export the model again")
        size = file.stat().st_size
        if size != info.size:
            raise BundleError(f"{file} is damaged: {size} bytes instead of {info.size}; copy the bundle again")
    return Bundle(folder, manifest)


def _check_name(folder: Path, name: str) -> None:
    # Bundles are flat: a plain file name can point nowhere else. Both styles, for bundles made on other systems.
    if name in ("", ".", "..") or PurePosixPath(name).name != name or PureWindowsPath(name).name != name:
        raise BundleError(f"{folder} is unsafe: it names a file outside itself ({name!r})")
    if not name.isprintable():
        raise BundleError(f"{folder} is unsafe: it names a file with unprintable characters ({name!r})")


def _refuse_link(folder: Path, name: str) -> None:
    # Also where it stays inside: a copy tool may follow a link or keep it, and a bundle needs none.
    if (folder / name).is_symlink():
        raise BundleError(f"{folder} is unsafe: {name} is a symbolic link; replace it by the file")


def verify_files(bundle: Bundle) -> list[str]:
    """Hash every file and compare with the manifest.

    Returns:
        the names of the files that were checked.

    Raises:
        BundleError: a file's content is not what was exported.
    """
    for name, info in bundle.manifest.files.items():
        path = bundle.folder / name
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BundleError(f"{path} cannot be read: {error.strerror or error}") from None
        if found != info.sha256:
            raise BundleError(f"{path} is damaged: its SHA-256 differs; copy the bundle again")
    return list(bundle.manifest.files)
