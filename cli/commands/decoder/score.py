"""``triform score``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import Bundle
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from typing import BinaryIO, TextIO

    from triform.runtime.opening import LoadOptions

HELP = """Measure how well a model predicts a text: its perplexity, lower is better.

\b
  triform score BUNDLE notes.txt
  triform score BUNDLE --json < notes.txt

The file is read in parts, so it may be of any size. A text longer than the model's context is read with a sliding
window that overlaps by half; each token counts once. The loss is the mean negative log-likelihood, in nats per token.
"""


@with_loading_options
def run(
    bundle: Bundle = None,
    file: Annotated[Optional[str], typer.Argument(help="A text file; standard input by default, or for -.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    import dataclasses
    import json

    from triform.cli.arguments.bundle import bundle_and_prompt
    from triform.runtime.opening import load_decoder

    folder, file = bundle_and_prompt(bundle, file)
    with _opened(file) as text:
        model = load_decoder(folder, **loading)
        result = model.file_perplexity(text)
    if as_json:
        print(json.dumps(dataclasses.asdict(result)))
    else:
        print(f"perplexity {result.perplexity:.4f}, loss {result.loss:.4f}, {result.tokens} tokens")
    return 0


@contextmanager
def _opened(file: str | None) -> Iterator[TextIO]:
    from triform.runtime.errors import InputError
    from triform.runtime.text.encoding import open_text

    if file is None and sys.stdin.isatty():
        raise InputError("there is no text: name a file, or write it to standard input")
    try:
        opened = nullcontext(_stdin()) if file in (None, "-") else Path(str(file)).open("rb")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None
    try:
        with opened as stream:
            yield open_text(stream)
    except UnicodeDecodeError:
        raise InputError(f"the text in {file or 'standard input'} is not UTF-8 text") from None


def _stdin() -> BinaryIO:
    # A replacement of standard input may only have text.
    return getattr(sys.stdin, "buffer", None) or BytesIO(sys.stdin.read().encode("utf-8", "surrogateescape"))
