"""The defaults of one command's options in the files, checked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from triform.cli.configuration.allowed import kind_of, may_have_default, options_of
from triform.cli.configuration.files import read_settings, settings_files
from triform.runtime.errors import InputError

# A command's table: ("generate",), or ("batch", "embed") for [batch.embed].
Table = tuple[str, ...]
# What stands before the tables counts for every command that has the option, and has this type.
SHARED = {"provider": "text", "threads": "int"}
# By the kind of an option: what is expected, and the types that TOML has for it.
_TYPES: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "bool": ("true or false", (bool,)),
    "int": ("a whole number", (int,)),
    "float": ("a number", (int, float)),
    "text": ("a text", (str,)),
}


class Setting(NamedTuple):
    """A default of an option.

    Attributes:
        value: as TOML has it.
        path: the file.
        key: its name there, such as generate.top-k.
        is_local: see `SettingsFile`.
    """

    value: Any
    path: Path
    key: str
    is_local: bool


def settings_for(command: Any, table: Table, tables: Collection[Table]) -> dict[str, Setting]:
    """The defaults that the files set, by the names of click's parameters.

    Args:
        command: click's.
        table: where its options are.
        tables: of all commands.

    Raises:
        InputError: a file cannot be read, names what does not exist, or sets what it may not.
    """
    found: dict[str, Setting] = {}
    options = options_of(command)
    for file in settings_files():
        content = read_settings(file.path)
        _check_tables(file.path, content, tables)
        shared = {key: value for key, value in content.items() if key in SHARED and key in options}
        for key, value in shared.items():
            found[options[key].name] = Setting(value, file.path, key, file.is_local)
        for key, value in _items(content, table):
            _check(file.path, table, key, value, options)
            found[options[key].name] = Setting(value, file.path, ".".join((*table, key)), file.is_local)
    return found


def check_file(path: Path, tables: Collection[Table], load: Callable[[Table], Any]) -> list[str]:
    """Check everything in a file.

    Args:
        path: the file.
        tables: of all commands.
        load: makes the command of a table.

    Returns:
        the keys that it sets.

    Raises:
        InputError: see `settings_for`.
    """
    content = read_settings(path)
    _check_tables(path, content, tables)
    keys = [key for key in content if key in SHARED]
    for table in sorted(tables):
        items = list(_items(content, table))
        options = options_of(load(table)) if items else {}
        for key, value in items:
            _check(path, table, key, value, options)
            keys.append(".".join((*table, key)))
    return keys


def _items(content: Mapping[str, Any], table: Table) -> Iterator[tuple[str, Any]]:
    for name in table:
        content = content.get(name, {})
    yield from content.items()


def _check_tables(path: Path, content: Mapping[str, Any], tables: Collection[Table]) -> None:
    groups = {table[0] for table in tables if len(table) > 1}
    for key, value in content.items():
        if key in SHARED:
            _check_type(f"{path}: {key}", value, SHARED[key], several=False)
        elif key in groups:
            _check_is_table(path, (key,), value)
            for name, inner in value.items():
                _check_known(path, (key, name), tables)
                _check_is_table(path, (key, name), inner)
        elif isinstance(value, dict) or (key,) in tables:
            _check_known(path, (key,), tables)
            _check_is_table(path, (key,), value)
        else:
            raise InputError(f"{path}: {key} must be in a command's table; before the tables go {', '.join(SHARED)}")


def _check_known(path: Path, table: Table, tables: Collection[Table]) -> None:
    if table not in tables:
        names = [name for *group, name in tables if group == list(table[:-1])]
        raise InputError(f"{path}: [{'.'.join(table)}] is no command's table{_did_you_mean(table[-1], names)}")


def _check_is_table(path: Path, table: Table, value: object) -> None:
    if not isinstance(value, dict):
        raise InputError(f"{path}: {'.'.join(table)} must be a table, [{'.'.join(table)}], not {value!r:.60}")


def _check(path: Path, table: Table, key: str, value: object, options: Mapping[str, Any]) -> None:
    place = f"{path}: [{'.'.join(table)}]"
    if key not in options:
        raise InputError(f"{place} {key}: there is no such option{_did_you_mean(key, options)}")
    option = options[key]
    if not may_have_default(option):
        raise InputError(f"{place} {key} can only be given on the command line; remove it")
    _check_type(f"{place} {key}", value, kind_of(option), several=option.multiple)


def _check_type(place: str, value: object, kind: str, *, several: bool) -> None:
    expected, types = _TYPES[kind]
    if several and not isinstance(value, list):
        raise InputError(f"{place} must be a list, with {expected} for each, not {value!r:.60}")
    for item in value if isinstance(value, list) and several else [value]:
        # In Python true is a number.
        if type(item) not in types:
            raise InputError(f"{place} must be {expected}, not {_toml(item):.60}")


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _did_you_mean(word: str, words: Collection[str]) -> str:
    import difflib

    close = difflib.get_close_matches(word, list(words), 1)
    return f"; did you mean {close[0]}?" if close else ""
