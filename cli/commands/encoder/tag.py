"""``triform tag``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.loading import with_loading_options
from triform.cli.arguments.text_inputs import with_text_inputs

if TYPE_CHECKING:
    from triform.cli.arguments.text_inputs import TextInputs
    from triform.cli.inputs.records import Record
    from triform.runtime.encoder.tagging import Tag
    from triform.runtime.opening import LoadOptions

HELP = """Find named entities and other spans in texts of any length.

\b
  triform tag BUNDLE "Ada Lovelace was born in London."
  triform tag BUNDLE --file letters.txt --aggregation first
  triform tag BUNDLE --file letters.jsonl --field body --json > tagged.jsonl

One line per span: label, score, start-end, text, separated by tabs, after the number of the text or line unless a
single text is given. Start and end are character offsets. A text that is too long for the model is read in windows that
overlap by --stride tokens.
A model that reads where words stand (LayoutLM) takes pages from a .jsonl file, one a line, with boxes of left, top,
right and bottom in the unit of the page's width and height:
  {"words": ["Total", "12.50"], "boxes": [[100, 40, 190, 60], [210, 40, 290, 60]], "page": [850, 1100]}
Without "page" boxes are in thousandths of the page. --json gives the numbers of each span's words, from 0; start and
end are offsets in the words with a space between them.
"""


@with_text_inputs
@with_loading_options
def run(
    *,
    inputs: TextInputs,
    aggregation: Annotated[
        str, typer.Option(help="none: each token; simple: groups of tokens; first, average, max: whole words.")
    ] = "simple",
    stride: Annotated[Optional[int], typer.Option(help="Overlap of windows in tokens; a quarter by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per text.")] = False,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.outputs.notes import end_inputs
    from triform.cli.outputs.progress import with_results
    from triform.runtime.encoder.tagging import tag
    from triform.runtime.opening import load_encoder

    records = inputs.records(pages=True)
    model = load_encoder(inputs.folder, **loading)
    results = with_results(records, lambda lines: tag(model, lines, aggregation=aggregation, stride=stride))
    for record, tags in results:
        if as_json:
            _print_json(record, tags)
        else:
            _print("" if len(inputs.texts) == 1 else f"{record.number}\t", tags)
    end_inputs(records, model.reader())
    return 0


def _print(number: str, tags: list[Tag]) -> None:
    for span in tags:
        print(f"{number}{span.label}\t{span.score:.4f}\t{span.start}-{span.end}\t{' '.join(span.text.split())}")


def _print_json(record: Record, tags: list[Tag]) -> None:
    import dataclasses
    import json

    spans = [dataclasses.asdict(span) for span in tags]
    if record.page is None:
        for fields in spans:
            del fields["words"]
    print(json.dumps({**(record.value or {"text": record.text}), "tags": spans}))
