"""Runs the slash commands of ``triform chat``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from triform.cli.outputs.notes import say
from triform.runtime.errors import InputError

if TYPE_CHECKING:
    from triform.cli.chat.session import Chat


class Command(NamedTuple):
    """A command: a function of the chat and the rest of the line, and the help for both."""

    run: Callable[[Chat, str], None]
    argument: str
    help: str


def run_command(chat: Chat, line: str) -> None:
    """Run the command in a line.

    Args:
        chat: to run it on.
        line: the command with its slash, and its argument.

    Raises:
        InputError: there is no such command, or it fails.
    """
    name, _, rest = line[1:].strip().partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise InputError(f"there is no command /{name:.40}; /help lists them, and // begins a message with a slash")
    if rest.strip() and not command.argument:
        raise InputError(f"/{name} takes no argument, not {rest.strip()!r:.60}")
    command.run(chat, rest.strip())


def _save(chat: Chat, rest: str) -> None:
    path = _path("/save", rest)
    chat.conversation.save(path)
    say(f"note: {len(chat.conversation.messages)} messages saved to {path}")


def _load(chat: Chat, rest: str) -> None:
    path = _path("/load", rest)
    chat.conversation.load(path)
    say(f"note: {len(chat.conversation.messages)} messages loaded from {path}")


def _path(name: str, rest: str) -> Path:
    if not rest:
        raise InputError(f"{name} needs a file")
    try:
        return Path(rest).expanduser()
    except RuntimeError as error:
        raise InputError(f"{name} {rest}: {error}") from None


def _reset(chat: Chat, rest: str) -> None:
    chat.conversation.reset()
    say("note: the conversation was reset")


def _undo(chat: Chat, rest: str) -> None:
    taken = chat.conversation.undo()
    say(f"note: undone: {' '.join(str(taken[0].get('content')).split()):.60}")


def _system(chat: Chat, rest: str) -> None:
    if rest:
        chat.conversation.system = None if rest == "-" else rest
    present = chat.conversation.system
    say("note: there is no system prompt" if present is None else f"system: {present}")


def _params(chat: Chat, rest: str) -> None:
    from triform.cli.chat.parameters import changed_values, with_changes
    from triform.runtime.generation.options.generation import GenerationOptions

    options = chat.conversation.options or GenerationOptions()
    words = rest.split()
    if words[:1] == ["stats"]:
        if words[1:] not in (["on"], ["off"]):
            raise InputError("/params stats must be on or off")
        chat.stats = words[1] == "on"
        say(f"note: stats are {words[1]}")
        return
    if rest:
        options = chat.conversation.options = with_changes(options, rest)
    say("params: " + (changed_values(options) or "none, all are the model's own"))


def _help(chat: Chat, rest: str) -> None:
    from triform.cli.outputs.tables import rows

    say(rows((f"/{name} {command.argument}".strip(), command.help) for name, command in COMMANDS.items()))
    say('A line that ends in a backslash continues on the next; lines between """ and """ form one message.')
    say("Ctrl-C stops an answer.")


def _exit(chat: Chat, rest: str) -> None:
    chat.done = True


COMMANDS = {
    "save": Command(_save, "FILE", "Write the conversation to a file, as JSON."),
    "load": Command(_load, "FILE", "Continue a conversation from a file."),
    "reset": Command(_reset, "", "Forget all turns; the system prompt stays."),
    "undo": Command(_undo, "", "Take back the last turn."),
    "system": Command(_system, "[TEXT]", "Show or change the system prompt; - removes it."),
    "params": Command(
        _params, "[NAME=VALUE …]", "Show or change options; NAME= restores the model's own value; stats on or off."
    ),
    "help": Command(_help, "", "Show this."),
    "exit": Command(_exit, "", "Leave the chat, as the end of input does."),
}
