"""Writes the manual page of the command line, of the texts that --help prints: `make man`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from triform import __version__
from triform.cli.command_table import BATCH_MODULES, COMMAND_MODULES, load_command
from triform.cli.main import app

# Click prints a paragraph that begins with this line by line.
VERBATIM = "\b"
END = r"""
.SH ENVIRONMENT
.TP
.B TRIFORM_BUNDLE
The bundle to use where a command names none.
.TP
.BI TRIFORM_ COMMAND _ OPTION
The default of an option of a command, such as TRIFORM_GENERATE_MAX_NEW_TOKENS; values of a repeatable one are separated
by spaces.
.TP
.BR TRIFORM_PROVIDER ", " TRIFORM_THREADS
The defaults of these options for every command.
.TP
.B TRIFORM_DEBUG
Where it is set, an unexpected error is shown with its traceback.
.TP
.BR HF_TOKEN ", " HF_HUB_OFFLINE
Of the hub that
.B triform export
fetches checkpoints from.
.SH FILES
.TP
.I triform.toml
In the working folder: defaults of options, in a table for each command. They count less than those of the environment.
.TP
.I ~/.config/triform/triform.toml
The same for all folders; what a working folder's file says counts more.
.TP
.I ~/.cache/triform/verified
Which weights were hashed and have not changed since.
.SH EXIT STATUS
.TP
.B 0
All is done.
.TP
.B 1
A bundle, a model or the machine does not do what was asked.
.TP
.B 2
The command line, or an input that it names, cannot be used.
.TP
.B 130
The command was interrupted.
"""


def page() -> str:
    """The whole page, in the macros of man(7)."""
    root = typer.main.get_command(app).help or ""
    lines = [
        f'.TH TRIFORM 1 "" "triform {_escaped(__version__)}" "User Commands"',
        ".SH NAME",
        r"triform \- run trained transformers offline, from small bundles",
        ".SH SYNOPSIS",
        ".B triform",
        ".I COMMAND",
        r"[\fIOPTIONS\fR] [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        *list(_text(root))[1:],
        ".SH COMMAND_MODULES",
    ]
    for name in COMMAND_MODULES:
        if name != "batch":
            lines += _command((name,))
    for name in BATCH_MODULES:
        lines += _command(("batch", name))
    return "\n".join(lines) + END


def _command(table: tuple[str, ...]) -> Iterator[str]:
    command = load_command(table)
    yield f'.SS "triform {_escaped(" ".join(table))}"'
    names = [f"[{name}]" if not argument.required else name for argument, name in _arguments(command)]
    yield r"[\fIOPTIONS\fR] " + " ".join(rf"\fI{_escaped(name)}\fR" for name in names)
    yield from _text(command.help or "")
    for argument, name in _arguments(command):
        yield from (".TP", rf".I {_escaped(name)}", _escaped(argument.help or ""))
    for option in command.params:
        if option.param_type_name == "option":
            yield from _option(option)


def _arguments(command: Any) -> list[tuple[Any, str]]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    return [(argument, (argument.metavar or argument.name).upper()) for argument in arguments]


def _option(option: Any) -> Iterator[str]:
    flags = ", ".join(_escaped(flag) for flag in (*option.opts, *option.secondary_opts))
    is_flag = type(option.type).__name__ == "BoolParamType"
    value = "" if is_flag else rf" \fI{_escaped(option.type.name.upper())}\fR"
    default = "" if is_flag or option.default in (None, ()) else f" [default: {option.default}]"
    yield from (".TP", rf"\fB{flags}\fR{value}", _escaped((option.help or "") + default))


def _text(text: str) -> Iterator[str]:
    """Paragraphs, as click reads them."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        lines = [line.rstrip() for line in paragraph.strip("\n").splitlines()]
        if lines[:1] == [VERBATIM]:
            yield from (".PP", ".nf", *map(_escaped, lines[1:]), ".fi")
        else:
            yield from (".PP", *map(_escaped, lines))


def _escaped(text: str) -> str:
    """Text as it is, in roff: no line is a request, and a dash can be copied to a command line."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    text = "".join(letter if letter.isascii() else rf"\[u{ord(letter):04X}]" for letter in text)
    return rf"\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(), encoding="utf-8")
