"""``triform rerank``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import Bundle, Field, SkipErrors, Strict
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record
    from triform.runtime.opening import LoadOptions

HELP = """Order documents by how well they answer a query.

\b
  triform rerank BUNDLE "how do plants eat" "Leaves make sugar from light." "Cats sleep all day."
  triform rerank BUNDLE "how do plants eat" --file passages.txt --top-k 10
  triform rerank BUNDLE "how do plants eat" --file passages.jsonl --field body --json

One line per document: score, number, text, separated by tabs; the best first.
The score is the model's logit after the activation that its config names, or else a sigmoid, which gives a probability.
--json also prints the "logit".
"""


@with_loading_options
def run(
    bundle: Bundle = None,
    query: Annotated[Optional[str], typer.Argument(help="The query.")] = None,
    documents: Annotated[
        Optional[list[str]], typer.Argument(help="Documents; the lines of standard input by default.")
    ] = None,
    file: Annotated[Optional[Path], typer.Option(help="Read documents from a file: lines, .jsonl, …")] = None,
    field: Field = None,
    skip_errors: SkipErrors = False,
    top_k: Annotated[Optional[int], typer.Option(help="Number of documents to show; all by default.")] = None,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per document.")] = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import at_least_one, bundle_and_texts
    from triform.cli.inputs.records import Records
    from triform.cli.outputs.notes import end_inputs
    from triform.cli.outputs.progress import with_results
    from triform.runtime.encoder.reranking import relevance, score
    from triform.runtime.errors import InputError
    from triform.runtime.opening import load_encoder

    at_least_one("--top-k", top_k)
    folder, arguments = bundle_and_texts(bundle, [] if query is None else [query, *(documents or ())])
    if not arguments:
        raise InputError("no query: give it as the argument before the documents")
    records = Records(arguments[1:], file, field, skip_errors)
    model = load_encoder(folder, strict=strict, **loading)
    logits = with_results(records, lambda lines: relevance(model, arguments[0], lines))
    scored = ((logit, record) for record, logit in logits)
    for rank, (logit, record) in enumerate(_best(scored, top_k), 1):
        _print(rank, (score(model, logit), logit), record, as_json)
    end_inputs(records, model.reader())
    return 0


def _best(scored: Iterable[tuple[float, Record]], top_k: int | None) -> list[tuple[float, Record]]:
    """The best first; equal scores in their original order."""
    if top_k is None:
        return sorted(scored, key=lambda pair: pair[0], reverse=True)
    from heapq import nlargest

    # Keeps only top_k records in memory.
    return nlargest(top_k, scored, key=lambda pair: pair[0])


def _print(rank: int, scored: tuple[float, float], record: Record, as_json: bool) -> None:
    score, logit = scored
    if as_json:
        import json

        ranking = {"rank": rank, "number": record.number, "score": score, "logit": logit}
        print(json.dumps({**(record.value or {"text": record.text}), **ranking}))
    else:
        print(f"{score:.4f}\t{record.number}\t{' '.join(record.text.split())}")
