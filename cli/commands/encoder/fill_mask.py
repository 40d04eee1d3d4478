"""``triform fill-mask``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import Strict
from triform.cli.arguments.loading import with_loading_options
from triform.cli.arguments.text_inputs import with_text_inputs
from triform.cli.outputs.notes import say

if TYPE_CHECKING:
    from triform.cli.arguments.text_inputs import TextInputs
    from triform.runtime.encoder.fill_mask import Filling
    from triform.runtime.encoder.model import Encoder
    from triform.runtime.opening import LoadOptions

HELP = """Predict masked words.

\b
  triform fill-mask BUNDLE "Paris is the [MASK] of France."
  triform fill-mask BUNDLE "Paris is the [MASK] of France." --targets capital,mayor
  triform fill-mask BUNDLE --file texts.txt --top-k 1 --json

A mask is written [MASK], <mask>, or as the model writes it; if a text has several, each is predicted independently.
One line per prediction: score, word, the whole text, separated by tabs; the most likely first, mask by mask.
A model that reads where words stand takes pages from a .jsonl file, see triform tag --help.
"""


@with_text_inputs
@with_loading_options
def run(
    *,
    inputs: TextInputs,
    top_k: Annotated[int, typer.Option(help="Predictions to show for each mask.")] = 5,
    targets: Annotated[Optional[str], typer.Option(help="Words to choose from, separated by commas.")] = None,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per text.")] = False,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import at_least_one
    from triform.cli.outputs.notes import end_inputs
    from triform.cli.outputs.progress import with_results
    from triform.runtime.encoder.fill_mask import fill_mask
    from triform.runtime.opening import load_encoder

    at_least_one("--top-k", top_k)
    records = inputs.records(pages=True)
    model = load_encoder(inputs.folder, strict=strict, **loading)
    tokens = None if targets is None else _tokens(model, targets)
    results = with_results(records, lambda lines: fill_mask(model, lines, top_k=top_k, targets=tokens))
    for record, masks in results:
        if as_json:
            _print_json(record.text, record.value, masks)
        else:
            _print(masks)
    end_inputs(records, model.reader())
    return 0


def _tokens(model: Encoder, targets: str) -> list[int]:
    from triform.runtime.encoder.fill_mask import find_targets
    from triform.runtime.errors import InputError

    # Keep spaces: for some tokenizers a word after a space is a different token.
    words = [word for word in targets.split(",") if word.strip()]
    if not words:
        raise InputError("--targets names no word")
    resolved = find_targets(model, words)
    for target in resolved:
        if not target.whole:
            say(f"note: the target {target.word!r} is not one token of this model; using {target.piece!r} instead")
    return [target.token for target in resolved]


def _print(masks: list[list[Filling]]) -> None:
    for fillings in masks:
        for filling in fillings:
            print(f"{filling.score:.4g}\t{filling.token_str}\t{' '.join(filling.sequence.split())}")


def _print_json(text: str, value: dict[str, object] | None, masks: list[list[Filling]]) -> None:
    import dataclasses
    import json

    predictions = [[dataclasses.asdict(filling) for filling in fillings] for fillings in masks]
    print(json.dumps({**(value or {"text": text}), "masks": predictions}))
