"""Opens a bundle's folder, and refuses it if anything in it is unsafe or does not match the manifest.

An .onnx file names its weight files itself. onnxruntime resolves links and refuses absolute paths and all files outside
the model's folder (tests/cli/test_bundles.py). The folder contains only files that the manifest lists, so that
everything a graph reads has a hash.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from triform.runtime.bundle.manifest import MANIFEST, SIGNATURE, GraphInfo, Manifest
from triform.runtime.bundle.reading import read_manifest
from triform.runtime.bundle.targets import manifests
from triform.runtime.bundle.text_info import TokenizerInfo
from triform.runtime.errors import BundleError
from triform.runtime.printable import quoted

# Files that macOS, Windows and KDE put into folders, and those of a model's page on a hub.
_LITTER = (".DS_Store", "Thumbs.db", "desktop.ini", ".directory", ".gitattributes", ".cache", "README.md", "LICENSE")
# Prefix of the files in which macOS keeps metadata on file systems that cannot store it.
_APPLE_DOUBLE = "._"


@dataclass(frozen=True)
class Bundle:
    """A folder that has all files of its manifest, in the sizes that the manifest gives."""

    folder: Path
    manifest: Manifest

    def path(self, name: str) -> Path:
        """Return the path of the file `name`.

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
        """Return the path of the ONNX file of graph `name`, and its entry in the manifest.

        Raises:
            BundleError: there is no such graph.
        """
        info = self.manifest.graphs.get(name)
        if info is None:
            raise BundleError(f"{self.folder} has no {name} graph; export the model again")
        return self.path(info.file), info


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle: read its manifest, and check the names and sizes of its files.

    Raises:
        BundleError: the folder is missing or is not a bundle, a name is unsafe, or a file is missing, of another size,
            or not listed in the manifest.
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
    _refuse_unlisted(folder, manifest)
    return Bundle(folder, manifest)


def _check_name(folder: Path, name: str) -> None:
    # Bundles are flat: a plain file name cannot point elsewhere. Both styles, for bundles made on other systems.
    if name in ("", ".", "..") or PurePosixPath(name).name != name or PureWindowsPath(name).name != name:
        raise BundleError(f"{folder} is unsafe: it names a file outside itself ({quoted(name)})")
    if not name.isprintable():
        raise BundleError(f"{folder} is unsafe: it names a file with unprintable characters ({quoted(name)})")


def _refuse_link(folder: Path, name: str) -> None:
    # Even a link inside the folder: a copy tool may follow a link or keep it, and a bundle needs none.
    file = folder / name
    if file.is_symlink() and not _is_in_hub_cache(folder, file):
        raise BundleError(
            f"{folder} is unsafe: {name} is a symbolic link to {quoted(os.readlink(file))}; replace it by the file"
        )


def _is_in_hub_cache(folder: Path, link: Path) -> bool:
    """Whether a link leads from a snapshot of huggingface_hub's cache to a file among the blobs of the same model.

    The cache holds ``models--ORG--NAME/blobs/HASH``, and ``models--ORG--NAME/snapshots/REVISION`` with links to them.
    """
    snapshots = folder.resolve().parent
    target = link.resolve()
    return snapshots.name == "snapshots" and target.parent == snapshots.parent / "blobs" and target.is_file()


def _refuse_unlisted(folder: Path, manifest: Manifest) -> None:
    unlisted = sorted(set(os.listdir(folder)) - manifest.files.keys() - {MANIFEST})
    for name in unlisted:
        if not name.startswith(_APPLE_DOUBLE) and name not in (*_LITTER, SIGNATURE):
            raise BundleError(
                f"{folder} holds {quoted(name)}, which its manifest does not list; "
                "move it away, or export the model again"
            )
        # A graph can read any file of the folder by naming it.
        written = (f"{name}/" if (folder / name).is_dir() else name).lower().encode()
        for info in (info for one_target in manifests(manifest) for info in one_target.graphs.values()):
            if written in (folder / info.file).read_bytes().lower():
                raise BundleError(
                    f"{folder} is unsafe: {info.file} names {quoted(name)}, which the manifest does not list"
                )
