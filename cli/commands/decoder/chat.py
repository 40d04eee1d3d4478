"""``triform chat``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import Bundle, Template, TemplateVars
from triform.cli.arguments.generation import CONTEXT, DECODER, with_generation_options
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.cli.chat.lines import Lines
    from triform.cli.chat.session import Chat
    from triform.runtime.generation.options.generation import GenerationOptions
    from triform.runtime.opening import LoadOptions

HELP = """Chat with a model that was trained for it.

\b
  triform chat BUNDLE
  triform chat BUNDLE --system "Be brief." --temperature 0.7 --max-new-tokens 300
  triform chat BUNDLE --load yesterday.json
  printf 'Name a river.\\nWhere does it end?\\n' | triform chat BUNDLE > answers.txt

Lines that begin with a slash are commands; /help lists them. A line that ends in a backslash continues on the next.
Lines between \"\"\" and \"\"\" form one message. Ctrl-C stops the answer; what was printed is kept. /exit or the end of
input ends the chat.

If standard input is not a terminal, it is read in the same way, and the exit code is 1 if anything was refused. Only
answers go to standard output.
"""


@with_generation_options((*DECODER, *CONTEXT))
@with_loading_options
def run(
    bundle: Bundle = None,
    system: Annotated[Optional[str], typer.Option(help="The system prompt.")] = None,
    load: Annotated[Optional[Path], typer.Option(help="Continue a conversation that /save wrote.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Print the speed of each answer to standard error.")] = False,
    template: Template = None,
    template_var: TemplateVars = None,
    history: Annotated[Optional[Path], typer.Option(help="Keep the history of typed lines in this file.")] = None,
    *,
    loading: LoadOptions,
    options: GenerationOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_prompt, template_vars
    from triform.cli.chat.lines import Lines
    from triform.cli.chat.session import Chat
    from triform.cli.outputs.notes import say
    from triform.runtime.decoder.conversation import Conversation
    from triform.runtime.opening import load_decoder

    folder, _ = bundle_and_prompt(bundle, "" if bundle else None)
    model = load_decoder(folder, **loading)
    conversation = Conversation(model, options=options, template=template, template_vars=template_vars(template_var))
    if load is not None:
        conversation.load(load)
    if system is not None:
        conversation.system = system
    chat, lines = Chat(conversation, context=model.manifest.max_length, stats=stats), Lines(history)
    if lines.interactive:
        say(f"{folder.name}; /help lists commands, /exit or the end of input leaves")
    _talk(chat, lines)
    lines.close()
    return int(chat.refused and not lines.interactive)


def _talk(chat: Chat, lines: Lines) -> None:
    from triform.cli.outputs.notes import say

    while not chat.done:
        try:
            message = lines.message()
        except KeyboardInterrupt:
            if not lines.interactive:
                raise
            # As in a shell, drop the line.
            say("")
            continue
        if message is None:
            if lines.interactive:
                say("")
            return
        _take(chat, message)


def _take(chat: Chat, message: str) -> None:
    """Answer a message or run a slash command; an error is printed as one line."""
    from triform.cli.chat.slash_commands import run_command
    from triform.cli.outputs.notes import complain
    from triform.runtime.errors import TriformError

    if not message.strip():
        return
    try:
        if message.startswith("/") and not message.startswith("//"):
            run_command(chat, message)
        else:
            # Two slashes begin a message that starts with one.
            chat.answer(message[message.startswith("//") :])
    except TriformError as error:
        chat.refused = True
        complain(error)
