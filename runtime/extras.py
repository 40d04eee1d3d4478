"""What a device may need besides triform's own packages, and how to install it."""

from __future__ import annotations

import re
import shlex
import sys

from triform.runtime.errors import OutOfMemoryError, TriformError, UnsupportedError, is_out_of_memory
from triform.runtime.printable import shortened

# Characters of what an import says that are quoted.
_LONGEST = 200


def missing_extra(need: str, extra: str) -> TriformError:
    """The error that says what is needed and how to install it.

    While an ImportError is handled of a package that is there but cannot be loaded, it says that instead.

    Args:
        need: what is needed for what, such as "images need Pillow".
        extra: the optional dependencies, of pyproject.toml, that it is part of.
    """
    error = sys.exception()
    if not isinstance(error, ImportError) or isinstance(error, ModuleNotFoundError):
        return UnsupportedError(f"{need}: {install_command(extra)}")
    reason = f"{need}, which is installed but cannot be loaded ({shortened(str(error), _LONGEST)})"
    return OutOfMemoryError(reason) if is_out_of_memory(error) else UnsupportedError(reason)


def install_command(extra: str) -> str:
    """The command that installs the packages of an extra.

    It names packages, since triform itself may have been installed from a folder or a wheel, which no index has. They
    are read from the metadata that was installed with it; where that is missing, this says where they are listed.
    """
    packages = _packages(extra)
    if not packages:
        return f"install what triform's pyproject.toml lists for the extra {extra}"
    return f"pip install {shlex.join(packages)}"


def missing_extras() -> dict[str, str]:
    """The command that installs each extra of which a package is not installed."""
    from importlib import metadata

    try:
        names = metadata.metadata("triform").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return {}
    return {name: install_command(name) for name in names if not all(map(_is_installed, _packages(name)))}


def _is_installed(requirement: str) -> bool:
    from importlib import metadata

    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    try:
        return bool(name and metadata.version(name[0]))
    except metadata.PackageNotFoundError:
        return False


def _packages(extra: str) -> list[str]:
    """Each as pip takes it, such as ``pillow>=11``."""
    # Imported here, since only a command that fails needs it.
    from importlib import metadata

    try:
        requirements = metadata.requires("triform") or []
    except metadata.PackageNotFoundError:
        return []
    # As in `pillow>=11; extra == "image"`.
    of_extra = re.compile(rf"""extra\s*==\s*["']{re.escape(extra)}["']""")
    split = (requirement.partition(";") for requirement in requirements)
    return [package.strip() for package, _, marker in split if of_extra.search(marker)]
