"""What to install for a part of triform that needs more than a device has. test_device_install.py has every extra."""

from __future__ import annotations

from importlib import metadata

from triform.runtime.errors import UnsupportedError
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


def test_without_metadata(monkeypatch):
    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", nothing)
    assert install_command("image") == "install what triform's pyproject.toml lists for the extra image"
