"""Finds triform.toml, in the working folder and in the user's folder for configurations, and reads it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triform.runtime.errors import InputError

_NAME = "triform.toml"
# In bytes: no real file comes near, and a device's memory may be small.
_LARGEST = 2**20


@dataclass(frozen=True)
class SettingsFile:
    """A file that exists.

    Attributes:
        path: of the file, absolute.
        is_local: whether it lies in the working folder, which anybody may have filled.
    """

    path: Path
    is_local: bool


def settings_files() -> list[SettingsFile]:
    """Those that exist; what stands in a later one counts more."""
    folder, local = _user_folder(), Path(_NAME)
    files = []
    # Where a folder may not be entered, as the home of another user, os.path says no; pathlib raises.
    if folder is not None and os.path.isfile(folder / _NAME):
        files.append(SettingsFile((folder / _NAME).absolute(), is_local=False))
    if os.path.isfile(local) and not any(local.samefile(file.path) for file in files):
        files.append(SettingsFile(local.absolute(), is_local=True))
    return files


def _user_folder() -> Path | None:
    """Where platformdirs would say; it would be one more package on every device for these lines."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
    elif sys.platform == "darwin":
        base = f"{home}/Library/Application Support"
    else:
        named = os.environ.get("XDG_CONFIG_HOME", "")
        base = named if os.path.isabs(named) else f"{home}/.config"
    # Without a home this would be in the working folder.
    return Path(base) / "triform" if os.path.isabs(base) else None


def read_settings(path: Path) -> dict[str, Any]:
    """The content of a file.

    Raises:
        InputError: it cannot be read, or is not TOML.
    """
    import tomllib

    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if len(data) > _LARGEST:
        raise InputError(f"{path} is larger than {_LARGEST} bytes; remove what is not settings")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except RecursionError:
        raise InputError(f"{path} is nested too deeply") from None
    except ValueError as error:
        raise InputError(f"{path} is not TOML: {error}") from None
