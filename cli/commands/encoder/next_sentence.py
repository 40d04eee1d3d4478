"""``triform next-sentence``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import Bundle, Strict
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.runtime.opening import LoadOptions

HELP = """Estimate whether one text follows another.

\b
  triform next-sentence BUNDLE "She opened the door." "Nobody was there."

Prints the probability that the second text follows the first.
"""


@with_loading_options
def run(
    bundle: Bundle = None,
    first: Annotated[Optional[str], typer.Argument(help="The first text.")] = None,
    second: Annotated[Optional[str], typer.Argument(help="The text that may follow it.")] = None,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a number.")] = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_texts
    from triform.cli.outputs.notes import end_inputs
    from triform.runtime.encoder.classification import next_sentence
    from triform.runtime.errors import InputError
    from triform.runtime.opening import load_encoder

    folder, texts = bundle_and_texts(bundle, [text for text in (first, second) if text is not None])
    if len(texts) != 2:
        raise InputError(f"give two texts, not {len(texts)}")
    model = load_encoder(folder, strict=strict, **loading)
    (score,) = next_sentence(model, [(texts[0], texts[1])])
    if as_json:
        import json

        print(json.dumps({"first": texts[0], "second": texts[1], "score": score}))
    else:
        print(f"{score:.4f}")
    end_inputs(None, model.reader())
    return 0
