"""``triform tag``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import (
    Bundle,
    Field,
    Provider,
    ProviderOptions,
    SkipErrors,
    TextFile,
    Texts,
    Threads,
    Verify,
)

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record
    from triform.runtime.encoder.tagging import Tag

HELP = """Find names and other spans in texts of any length.

\b
  triform tag BUNDLE "Ada Lovelace was born in London."
  triform tag BUNDLE --file letters.txt --aggregation first
  triform tag BUNDLE --file letters.jsonl --field body --json > tagged.jsonl

One line a span: label, score, start-end, text, with tabs between them, and the number of the text or line first unless
there is one text. Start and end count characters. A text that the model cannot read at once is read in windows that
overlap by --stride tokens.
"""


def run(
    bundle: Bundle = None,
    texts: Texts = None,
    file: TextFile = None,
    field: Field = None,
    skip_errors: SkipErrors = False,
    aggregation: Annotated[
        str, typer.Option(help="none: each token; simple: neighbors of a label; first, average, max: whole words.")
    ] = "simple",
    stride: Annotated[Optional[int], typer.Option(help="Tokens that windows share; a quarter if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a text.")] = False,
    provider: Provider = "auto",
    provider_option: ProviderOptions = None,
    threads: Threads = None,
    verify: Verify = "once",
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_texts, key_values
    from triform.cli.inputs.records import Records
    from triform.cli.outputs.notes import say_left_out
    from triform.cli.outputs.progress import with_results
    from triform.runtime.encoder.tagging import tag
    from triform.runtime.opening import load_encoder

    folder, given = bundle_and_texts(bundle, texts)
    records = Records(given, file, field, skip_errors)
    model = load_encoder(
        folder, provider=provider, provider_options=key_values(provider_option), threads=threads, verify=verify
    )
    found = with_results(records, lambda lines: tag(model, lines, aggregation=aggregation, stride=stride))
    for record, tags in found:
        if as_json:
            _print_json(record, tags)
        else:
            _print("" if len(given) == 1 else f"{record.number}\t", tags)
    say_left_out(records, model.reader())
    return 0


def _print(number: str, tags: list[Tag]) -> None:
    for one in tags:
        print(f"{number}{one.label}\t{one.score:.4f}\t{one.start}-{one.end}\t{' '.join(one.text.split())}")


def _print_json(record: Record, tags: list[Tag]) -> None:
    import dataclasses
    import json

    print(json.dumps({**(record.value or {"text": record.text}), "tags": [dataclasses.asdict(one) for one in tags]}))
