"""Puts a bundle on each machine of a cluster once, by Ray's object store."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triform.runtime.bundle.folder import open_bundle
from triform.runtime.bundle.manifest import MANIFEST
from triform.runtime.errors import InputError
from triform.runtime.files import whole_folder


@dataclass(frozen=True)
class SharedBundle:
    """A bundle that workers on other machines can have.

    Attributes:
        folder: where it is on the machine that gives it out.
        digest: of its manifest, which has the checksums of all other files.
        files: a reference to the content of each file, by its path in the folder.
    """

    folder: Path
    digest: str
    files: dict[str, Any]

    def here(self, parent: Path) -> Path:
        """The bundle's folder on this machine: the same one where it is there, else a copy in `parent`.

        The first worker of a machine writes the copy; loading checks it.
        """
        if _digest_of(self.folder) == self.digest:
            return self.folder
        copy = parent / f"triform-bundle-{self.digest}"
        if not copy.exists():
            try:
                with whole_folder(copy) as unnamed:
                    self._write(unnamed)
            except InputError:
                # Another worker was faster.
                if not copy.exists():
                    raise
        return copy

    def _write(self, folder: Path) -> None:
        import ray

        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(ray.get(content))


def share(bundle: Path) -> SharedBundle:
    """Put the content of a bundle's files into the object store.

    Raises:
        BundleError: it is no bundle.
    """
    import ray

    folder = open_bundle(bundle).folder.absolute()
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    contents = {str(path.relative_to(folder)): ray.put(path.read_bytes()) for path in files}
    return SharedBundle(folder, _digest_of(folder), contents)


def temporary_folder() -> Path:
    """Where copies of bundles go: TMPDIR, or the system's."""
    return Path(tempfile.gettempdir())


def _digest_of(folder: Path) -> str:
    try:
        manifest = (folder / MANIFEST).read_bytes()
    except OSError:
        return ""
    return hashlib.blake2b(manifest, digest_size=16).hexdigest()
