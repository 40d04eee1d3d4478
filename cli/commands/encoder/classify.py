"""``triform classify``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import Strict
from triform.cli.arguments.loading import with_loading_options
from triform.cli.arguments.text_inputs import with_text_inputs

if TYPE_CHECKING:
    from triform.cli.arguments.text_inputs import TextInputs
    from triform.runtime.encoder.model import Encoder
    from triform.runtime.opening import LoadOptions

HELP = """Classify texts.

\b
  triform classify BUNDLE "What a lovely evening." "It broke after a day."
  triform classify BUNDLE --file reviews.txt --top-k 3
  triform classify BUNDLE --file reviews.jsonl --field review --json > labeled.jsonl
  triform classify NLI_BUNDLE "The match ended in a draw." --labels sports,politics,weather

One line per label: score, label, text, separated by tabs; the best label of a text first.
A model that reads where words stand takes pages from a .jsonl file, see triform tag --help.
--labels gives your own labels (zero-shot), for a model trained on natural language inference.
"""


@with_text_inputs
@with_loading_options
def run(
    *,
    inputs: TextInputs,
    top_k: Annotated[
        Optional[int], typer.Option(help="Number of labels to show; 1 by default, all of --labels.")
    ] = None,
    labels: Annotated[Optional[str], typer.Option(help="Your own labels, separated by commas.")] = None,
    hypothesis_template: Annotated[
        Optional[str], typer.Option(help='Hypothesis for a label; "This example is {}." by default.')
    ] = None,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="More than one of --labels may fit a text.")
    ] = False,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per text.")] = False,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import at_least_one
    from triform.cli.outputs.notes import end_inputs
    from triform.cli.outputs.progress import with_results
    from triform.runtime.opening import load_encoder

    at_least_one("--top-k", top_k)
    own = _own_labels(labels, hypothesis_template, multi_label)
    records = inputs.records(pages=True)
    model = load_encoder(inputs.folder, strict=strict, **loading)
    most = top_k or (1 if own is None else None)
    results = with_results(records, lambda lines: _results(model, lines, own, hypothesis_template, multi_label))
    for record, result in results:
        if as_json:
            _print_json(record.text, record.value, result[:most])
        else:
            _print(record.text, result[:most])
    end_inputs(records, model.reader())
    return 0


def _own_labels(labels: str | None, template: str | None, multi_label: bool) -> list[str] | None:
    from triform.runtime.errors import refuse_unused

    if labels is not None:
        return [label.strip() for label in labels.split(",") if label.strip()]
    refuse_unused("needs --labels", hypothesis_template=template is not None, multi_label=multi_label)
    return None


def _results(
    model: Encoder, texts: Iterable[str], own: list[str] | None, template: str | None, multi_label: bool
) -> Iterator[list[tuple[str, float]]]:
    if own is None:
        from triform.runtime.encoder.classification import classify

        return classify(model, texts)
    from triform.runtime.encoder.zero_shot import HYPOTHESIS_TEMPLATE, zero_shot

    return zero_shot(
        model, texts, own, template=HYPOTHESIS_TEMPLATE if template is None else template, multi_label=multi_label
    )


def _print(text: str, result: list[tuple[str, float]]) -> None:
    for label, score in result:
        print(f"{score:.4f}\t{label}\t{' '.join(text.split())}")


def _print_json(text: str, value: dict[str, object] | None, result: list[tuple[str, float]]) -> None:
    import json

    labels = [{"label": label, "score": score} for label, score in result]
    print(json.dumps({**(value or {"text": text}), "labels": labels}))
