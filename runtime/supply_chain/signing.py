"""Signs a bundle, and checks its signature: Ed25519 over manifest.json, which holds the hashes of all other files."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from triform.runtime.bundle.folder import Bundle
from triform.runtime.bundle.manifest import MANIFEST, SIGNATURE
from triform.runtime.bundle.verification import verify_files
from triform.runtime.errors import BundleError, InputError, TriformError
from triform.runtime.extras import missing_extra
from triform.runtime.files import whole_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

# Of an Ed25519 signature, in bytes.
_SIZE = 64
# Far above any key of this kind, in bytes.
_LARGEST_KEY = 2**16


def sign_bundle(bundle: Bundle, key: Path) -> Path:
    """Sign a bundle whose files are as they were exported.

    Args:
        bundle: from `open_bundle`.
        key: an Ed25519 private key, in PEM without a password, that only its owner can read.

    Returns:
        the path of the signature, a file of 64 bytes in the bundle's folder.

    Raises:
        BundleError: a file of the bundle is damaged, or the signature's place is a link.
        InputError: the key cannot be used, or the signature cannot be written.
        UnsupportedError: cryptography is not installed.
    """
    private = _private_key(key)
    verify_files(bundle)
    target = bundle.folder / SIGNATURE
    # Whoever made the bundle made the link, and the file that it names would be overwritten.
    if target.is_symlink():
        raise BundleError(f"{target} is a link, which no bundle has: remove it, and sign the bundle again")
    with whole_file(target) as file:
        file.write(private.sign((bundle.folder / MANIFEST).read_bytes()))
    return target


def check_signature(bundle: Bundle, key: Path) -> None:
    """Check that the holder of a key signed a bundle's manifest; `verify_files` compares the files with it.

    Args:
        bundle: from `open_bundle`.
        key: an Ed25519 public key in PEM.

    Raises:
        BundleError: there is no signature, or it is not one of this manifest by this key.
        InputError: the key cannot be used.
        UnsupportedError: cryptography is not installed.
    """
    public = _public_key(key)
    from cryptography.exceptions import InvalidSignature

    path = bundle.folder / SIGNATURE
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{bundle.folder} is not signed: it has no {SIGNATURE}")
    with path.open("rb") as file:
        signature = file.read(_SIZE + 1)
    try:
        public.verify(signature, (bundle.folder / MANIFEST).read_bytes())
    except InvalidSignature:
        raise BundleError(f"{path} is not a signature of this manifest by {key}: do not use this bundle") from None


def _private_key(path: Path) -> Ed25519PrivateKey:
    content = _read(path)
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"{path} can be read by other users; make it private with chmod 600, or make a new key")
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key
    except ImportError:
        raise _missing() from None
    try:
        key: object = load_pem_private_key(content, password=None)
    except TypeError:
        raise InputError(f"{path} is protected by a password, which is not supported") from None
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} is not an Ed25519 private key in PEM")
    return key


def _public_key(path: Path) -> Ed25519PublicKey:
    content = _read(path)
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise _missing() from None
    try:
        key: object = load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise InputError(f"{path} is not an Ed25519 public key in PEM")
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_KEY)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None


def _missing() -> TriformError:
    return missing_extra("signatures need cryptography", "signing")
