"""Options whose value may be left out, which typer has not."""

from __future__ import annotations

from collections.abc import Sequence

# By command and option, what it stands for without a value.
_VALUES = {("export", "--quantize"): "auto"}


def with_values(arguments: Sequence[str]) -> list[str]:
    """A command line in which such options have a value: ``--quantize --force`` becomes ``--quantize auto --force``.

    Args:
        arguments: of the command line, the command first. An option whose value is another option, or that is the last
            argument, has none; what follows ``--`` are no options.
    """
    found: list[str] = []
    for place, argument in enumerate(arguments):
        if argument == "--":
            return [*found, *arguments[place:]]
        found.append(argument)
        value = _VALUES.get((arguments[0], argument))
        if value is not None and (place + 1 == len(arguments) or arguments[place + 1].startswith("-")):
            found.append(value)
    return found
