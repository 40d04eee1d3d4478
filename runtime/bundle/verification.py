"""Compares the files of a bundle with their SHA-256 hashes: at every load, or only once for weights."""

from __future__ import annotations

from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.targets import manifests
from triform.runtime.errors import BundleError
from triform.runtime.verified_files import Verify, check_verify, is_whole_file


def check_files(bundle: Bundle, verify: Verify) -> None:
    """Compare files with the hashes in the manifest, before they are used.

    Args:
        bundle: from `open_bundle`.
        verify: ``always`` hashes every file. ``once`` skips the graphs' weights if this user's cache records that they
            were intact before and have not changed since. ``never`` hashes nothing; sizes are compared whenever a
            bundle is opened.

    Raises:
        BundleError: a file differs from what was exported.
        InputError: `verify` is another word.
    """
    check_verify(verify)
    if verify == "never":
        return
    weights = {info.data for of_target in manifests(bundle.manifest) for info in of_target.graphs.values()}
    for name in bundle.manifest.files:
        check_file(bundle, name, once=verify == "once" and name in weights)


def verify_files(bundle: Bundle) -> list[str]:
    """Hash every file and compare with the manifest.

    Returns:
        the names of the files that were checked.

    Raises:
        BundleError: a file differs from what was exported.
    """
    check_files(bundle, "always")
    return list(bundle.manifest.files)


def check_file(bundle: Bundle, name: str, *, once: bool) -> None:
    """Compare one file with its hash in the manifest.

    Args:
        bundle: from `open_bundle`.
        name: of a file that the manifest lists.
        once: see `is_whole_file`.

    Raises:
        BundleError: the file differs from what was exported, or cannot be read.
    """
    path = bundle.path(name)
    try:
        whole = is_whole_file(path, bundle.manifest.files[name].sha256, once=once)
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from None
    if not whole:
        raise BundleError(f"{path} is damaged: its SHA-256 differs; copy the bundle again")
