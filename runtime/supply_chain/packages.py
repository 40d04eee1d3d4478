"""The packages that run bundles on a device: those installed here, or those of a file with hashes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from triform.runtime.errors import InputError
from triform.runtime.printable import quoted

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
# As pip-compile writes it, with its continuation lines joined: `numpy==2.4.0 --hash=sha256:… --hash=sha256:…`.
_PIN = re.compile(rf"(?P<name>{_NAME.pattern})==(?P<version>[\w.+!-]+)(?P<hashes>(?:\s+--hash=sha256:[0-9a-f]{{64}})+)")
_HASH = re.compile(r"sha256:([0-9a-f]{64})")
_EXTRA = re.compile(r"\bextra\s*==")


@dataclass(frozen=True)
class Package:
    """One package of an installation.

    Attributes:
        name: in the spelling that indexes use: lower case, with hyphens.
        version: its version.
        hashes: SHA-256 (hex) of each file of that release; empty if unknown.
        requires: the names of those that it needs.
    """

    name: str
    version: str
    hashes: list[str] = field(default_factory=list)
    requires: list[str] = field(default_factory=list)


def canonical_name(name: str) -> str:
    """A package's name in the spelling that indexes use."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_packages(root: str = "triform") -> list[Package]:
    """Triform and, in the versions installed here, all packages that it needs without extras; sorted by name."""
    packages: dict[str, Package] = {}
    pending = [root]
    while pending:
        name = canonical_name(pending.pop())
        if name in packages:
            continue
        distribution = _distribution(name)
        if distribution is not None:
            needed = sorted(filter(_distribution, _required(distribution)))
            packages[name] = Package(name, distribution.version, requires=needed)
            pending += needed
    return [packages[name] for name in sorted(packages)]


def _distribution(name: str) -> metadata.Distribution | None:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None


def _required(distribution: metadata.Distribution) -> set[str]:
    """The names of the packages that a package needs on some platform; those not installed are not needed here."""
    requirements = [text.partition(";") for text in distribution.requires or []]
    named = [_NAME.match(text.strip()) for text, _, marker in requirements if not _EXTRA.search(marker)]
    return {canonical_name(match[0]) for match in named if match is not None}


def locked_packages(path: Path) -> list[Package]:
    """The packages of a requirements file in which each has one version and hashes, such as requirements-device.txt.

    Raises:
        InputError: it cannot be read, names no package, or has a line of another form.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    packages: dict[str, Package] = {}
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        pin = _PIN.fullmatch(entry)
        if pin is None:
            raise InputError(f"{path}: each package needs one version and its hashes, unlike {quoted(entry)}")
        name = canonical_name(pin["name"])
        if name in packages:
            raise InputError(f"{path} names {name} twice")
        packages[name] = Package(name, pin["version"], _HASH.findall(pin["hashes"]))
    if not packages:
        raise InputError(f"{path} names no package")
    return [packages[name] for name in sorted(packages)]
