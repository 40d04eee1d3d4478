"""``triform tokens``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import Bundle, Verify
from triform.cli.outputs.notes import say

if TYPE_CHECKING:
    from triform.runtime.text.token_view import TokenView

HELP = """Show how a model tokenizes a text, for bundles of any form. Only the tokenizer is read.

\b
  triform tokens BUNDLE "Tokenization is unavoidable."
  triform tokens BUNDLE --json < letter.txt

One line per token: index, id, token, start-end, text, separated by tabs. Start and end are character offsets; tokens
that the model adds cover no characters.
"""


def run(
    bundle: Bundle = None,
    text: Annotated[Optional[str], typer.Argument(help="The text; standard input by default, or for -.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON array of tokens.")] = False,
    verify: Verify = "once",
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_prompt
    from triform.cli.inputs.whole_text import whole_text
    from triform.runtime.bundle.folder import open_bundle
    from triform.runtime.bundle.verification import check_file
    from triform.runtime.text.token_view import split_text

    folder, text = bundle_and_prompt(bundle, text)
    opened = open_bundle(folder)
    if verify != "never" and opened.tokenizer.file is not None:
        check_file(opened, opened.tokenizer.file, once=False)
    tokens = split_text(opened, whole_text("text", text))
    (_print_json if as_json else _print)(tokens)
    most = opened.manifest.max_length
    if len(tokens) > most:
        say(f"note: {len(tokens)} tokens; the model reads at most {most}")
    return 0


def _print(tokens: list[TokenView]) -> None:
    for token in tokens:
        # Escaped, so that each token is one line.
        shown = token.text if token.text.isprintable() else repr(token.text)[1:-1]
        print(f"{token.index}\t{token.id}\t{token.token}\t{token.start}-{token.end}\t{shown}")


def _print_json(tokens: list[TokenView]) -> None:
    import dataclasses
    import json

    print(json.dumps([dataclasses.asdict(token) for token in tokens]))
