"""What to install for a part of triform that needs more than a device has. test_device_install.py has every extra."""

from __future__ import annotations

from importlib import metadata
from types import SimpleNamespace

import pytest

from triform.runtime.errors import OutOfMemoryError, UnsupportedError
from triform.runtime.extras import install_command, missing_extra, missing_extras

# As setuptools writes it.
METADATA = [
    "numpy>=2.0",
    'pillow>=11; extra == "image"',
    'soundfile>=0.13; extra == "audio"',
    'soxr>=1.0; extra == "audio"',
    'triform[audio,image]; extra == "dev"',
]


def test_the_packages_of_an_extra(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: METADATA if name == "triform" else None)
    assert install_command("audio") == "pip install 'soundfile>=0.13' 'soxr>=1.0'"
    error = missing_extra("images need Pillow", "image")
    assert isinstance(error, UnsupportedError)
    assert str(error) == "images need Pillow: pip install 'pillow>=11'"


def raised_in(error):
    try:
        raise error
    except ImportError:
        return missing_extra("images need Pillow", "image")


def test_what_is_installed_but_cannot_be_loaded():
    """A limit of memory, or a library of the system that is missing."""
    missing = raised_in(ModuleNotFoundError("No module named 'PIL'"))
    assert "pip install" in str(missing)
    broken = raised_in(ImportError("libz.so.1: cannot open shared object file"))
    assert isinstance(broken, UnsupportedError)
    assert str(broken) == (
        "images need Pillow, which is installed but cannot be loaded (libz.so.1: cannot open shared object file)"
    )
    too_large = raised_in(ImportError("libz.so.1: failed to map segment from shared object"))
    assert isinstance(too_large, OutOfMemoryError)


def test_without_metadata(monkeypatch):
    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", nothing)
    assert install_command("image") == "install what triform's pyproject.toml lists for the extra image"


def test_extras_of_which_a_package_is_missing(monkeypatch):
    installed = {"pillow": "11.0", "soundfile": "0.13", "numpy": "2.0"}

    def version(name):
        if name not in installed:
            raise metadata.PackageNotFoundError(name)
        return installed[name]

    names = SimpleNamespace(get_all=lambda key: ["image", "audio", "nothing"] if key == "Provides-Extra" else None)
    monkeypatch.setattr(metadata, "metadata", lambda name: names)
    monkeypatch.setattr(metadata, "requires", lambda name: METADATA)
    monkeypatch.setattr(metadata, "version", version)
    assert missing_extras() == {"audio": "pip install 'soundfile>=0.13' 'soxr>=1.0'"}
    installed["soxr"] = "1.0"
    assert missing_extras() == {}
    monkeypatch.setattr(metadata, "metadata", lambda name: SimpleNamespace(get_all=lambda key: None))
    assert missing_extras() == {}


@pytest.mark.parametrize("length", [200, 201])
def test_what_an_import_says_is_quoted_up_to_200_characters(length):
    quoted = "x" * 200 if length == 200 else "x" * 199 + "\u2026"
    assert str(raised_in(ImportError("x" * length))).endswith(f"cannot be loaded ({quoted})")
