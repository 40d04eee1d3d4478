"""Says in messages about options which of them a file or an environment variable has set."""

from __future__ import annotations

import os
import re
from typing import Any

from triform.cli.configuration.allowed import names_of, options_of

_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
# By flag, where the value comes from.
_origins: dict[str, str] = {}


def use_origins_of(context: Any) -> None:
    """Remember where the values of a command's options come from.

    Args:
        context: click's, whose options are parsed as far as they could be.
    """
    _origins.clear()
    settings = getattr(context.command, "settings", {})
    for parameter in options_of(context.command).values():
        source = getattr(context.get_parameter_source(parameter.name), "name", None)
        if source == "DEFAULT_MAP":
            origin = f"{settings[parameter.name].key} in {settings[parameter.name].path}"
        elif source == "ENVIRONMENT":
            origin = next(name for name in parameter.envvar if os.environ.get(name))
        else:
            continue
        _origins.update({f"--{name}": origin for name in names_of(parameter)})


def with_origins(message: str) -> str:
    """A message, with the origins of the options in it that were not given on the command line."""
    named = {flag: _origins[flag] for flag in _FLAG.findall(message) if flag in _origins}
    return message + "".join(f" ({flag} is set by {origin})" for flag, origin in named.items())
