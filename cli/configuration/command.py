"""A command whose options have defaults from files and environment variables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from typer.core import TyperCommand

from triform.cli.configuration.allowed import options_of
from triform.cli.configuration.environment import use_environment
from triform.cli.configuration.origins import use_origins_of
from triform.cli.configuration.settings import Setting, Table, settings_for
from triform.cli.outputs.notes import say
from triform.runtime.errors import use_defaults


class ConfiguredCommand(TyperCommand):
    """Remembers what files set, to say so."""

    settings: Mapping[str, Setting] = {}

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        """See click; notes which options a file of the working folder has set."""
        context = super().make_context(*arguments, **extra)
        if not context.resilient_parsing:
            use_origins_of(context)
            use_defaults(_set_for_every_call(context))
            _say_local(context, self.settings)
        return context


def configure(command: ConfiguredCommand, table: Table, tables: Collection[Table]) -> None:
    """Give a command its defaults.

    Args:
        command: click's.
        table: see `settings_for`.
        tables: of all commands.

    Raises:
        InputError: a file or a variable cannot be used.
    """
    use_environment(command, table, tables)
    command.settings = settings_for(command, table, tables)
    command.context_settings["default_map"] = {name: setting.value for name, setting in command.settings.items()}


def _set_for_every_call(context: Any) -> Iterator[str]:
    """The options that have their values from files and variables, by their names in Python."""
    for parameter in options_of(context.command).values():
        if getattr(context.get_parameter_source(parameter.name), "name", None) in ("DEFAULT_MAP", "ENVIRONMENT"):
            yield parameter.name
            if parameter.multiple:
                yield f"{parameter.name}s"


def _say_local(context: Any, settings: Mapping[str, Setting]) -> None:
    """A folder's file changes answers, and whoever goes there may not know of it."""
    used = [
        setting
        for name, setting in settings.items()
        if setting.is_local and getattr(context.get_parameter_source(name), "name", None) == "DEFAULT_MAP"
    ]
    if used:
        say(f"note: {used[0].path} sets {', '.join(sorted(setting.key for setting in used))}")
