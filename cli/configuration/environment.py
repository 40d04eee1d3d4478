"""Environment variables that set defaults: TRIFORM_GENERATE_TOP_K, and TRIFORM_THREADS for every command."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Any

from triform.cli.configuration.allowed import may_have_default, names_of, options_of
from triform.cli.configuration.settings import SHARED, Table
from triform.runtime.errors import InputError


def use_environment(command: Any, table: Table, tables: Collection[Table]) -> None:
    """Tell click which variables its options have, and refuse those that no option has.

    Args:
        command: click's.
        table: see `settings_for`.
        tables: of all commands.

    Raises:
        InputError: a variable looks like an option of the command and is none, or may not be one.
    """
    prefix = _prefix(table)
    allowed: set[str] = set()
    for option in options_of(command).values():
        if may_have_default(option):
            names = names_of(option)
            option.envvar = [prefix + _upper(name) for name in names]
            option.envvar += [f"TRIFORM_{_upper(name)}" for name in names if name in SHARED]
            # A page of help would have a name of forty letters for each option.
            option.show_envvar = False
            allowed.update(option.envvar)
    # [classify-image] has names that begin as those of [classify] do.
    others = tuple(_prefix(other) for other in tables if other != table and _prefix(other).startswith(prefix))
    for name in os.environ:
        if name.startswith(prefix) and not name.startswith(others) and name not in allowed:
            raise InputError(_refusal(name, name.removeprefix(prefix), command))


def _refusal(variable: str, rest: str, command: Any) -> str:
    if rest in map(_upper, options_of(command)):
        return f"{variable} is set, but that option can only be given on the command line; unset it"
    return f"{variable} is set, but there is no such option; correct the name, or unset it"


def _prefix(table: Table) -> str:
    return f"TRIFORM_{'_'.join(map(_upper, table))}_"


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")
