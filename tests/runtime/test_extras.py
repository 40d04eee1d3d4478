"""What to install for a part of triform that needs more than a device has. test_device_install.py has every extra."""

from __future__ import annotations

from importlib import metadata

from triform.runtime.errors import OutOfMemoryError, UnsupportedError
from triform.runtime.extras import install_command, missing_extra

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
