"""``triform search``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from triform.cli.arguments.common import Bundle, Field, SkipErrors, Strict
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record, Records
    from triform.runtime.bundle.manifest import EmbeddingInfo
    from triform.runtime.encoder.model import Encoder
    from triform.runtime.encoder.vectors.search_index import Document, Hit, SearchIndex
    from triform.runtime.opening import LoadOptions
    from triform.runtime.verified_files import Verify as When

HELP = """Find the texts nearest to a query.

\b
  triform search BUNDLE "how do plants eat" --file passages.txt
  triform search BUNDLE "how do plants eat" --file passages.jsonl --field body --top-k 3 --json
  triform search BUNDLE "how do plants eat" --file passages.txt --index passages.index
  triform search BUNDLE "and at night?" --index passages.index
  triform search BUNDLE --queries questions.txt --index passages.index > found.jsonl

One line per text: cosine, line number, text, separated by tabs; the best first.
With --queries, one JSON object per query: {"query": ..., "results": [...]}; for JSON input, the object read with
"results" added. --index keeps the vectors in a folder, made the first time; it is refused if the file has changed
since. The model's prompts named query, and document, passage or corpus, are used unless others are given.
"""


@with_loading_options
def run(
    bundle: Bundle = None,
    query: Annotated[Optional[str], typer.Argument(help="What to look for.")] = None,
    queries: Annotated[
        Optional[Path], typer.Option(help="Read queries from a file: lines, .jsonl, …; - is standard input.")
    ] = None,
    query_field: Annotated[Optional[str], typer.Option(help="The field or column that holds the query.")] = None,
    file: Annotated[
        Optional[Path], typer.Option(help="Texts to search: lines, .jsonl, …; standard input by default.")
    ] = None,
    field: Field = None,
    top_k: Annotated[int, typer.Option(help="Number of texts to show.")] = 10,
    index: Annotated[Optional[Path], typer.Option(help="Keep the texts' vectors in this folder.")] = None,
    query_prompt: Annotated[Optional[str], typer.Option(help="Put this before the query.")] = None,
    query_prompt_name: Annotated[
        Optional[str], typer.Option(help="Put the model's prompt of this name before the query.")
    ] = None,
    prompt: Annotated[Optional[str], typer.Option(help="Put this before each text.")] = None,
    prompt_name: Annotated[
        Optional[str], typer.Option(help="Put the model's prompt of this name before each text.")
    ] = None,
    skip_errors: SkipErrors = False,
    strict: Strict = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per text.")] = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import at_least_one, bundle_and_prompt
    from triform.cli.outputs.notes import end_inputs
    from triform.runtime.encoder.vectors.embedding import embedding_info
    from triform.runtime.opening import load_encoder

    at_least_one("--top-k", top_k)
    folder, query = bundle_and_prompt(bundle, query)
    records = _records(file, field, index, skip_errors)
    questions = _questions(query, queries, query_field, skip_errors, records)
    model = load_encoder(folder, strict=strict, **loading)
    info = embedding_info(model)
    for_query, for_documents = _chosen(info, query_prompt, query_prompt_name), _chosen(info, prompt, prompt_name)
    verify = loading["verify"]
    documents = _documents(records) if index is None else _index(model, index, records, for_documents, verify)
    for question, hits in _answered(model, questions, documents, (for_query, for_documents), top_k):
        if queries is not None:
            _print_all(question, hits)
        else:
            for rank, hit in enumerate(hits, 1):
                _print(rank, hit, as_json)
    end_inputs(questions, None)
    end_inputs(records, model.reader())
    return 0


def _questions(
    query: str | None, file: Path | None, field: str | None, skip_errors: bool, records: Records | None
) -> Records:
    from triform.cli.inputs.records import Records
    from triform.runtime.errors import InputError, refuse_unused

    if query is None and file is None:
        raise InputError("no query: give it as the argument after the bundle, or many with --queries")
    if query is not None and file is not None:
        raise InputError("give a query or --queries, not both")
    refuse_unused("needs --queries", query_field=field is not None and file is None)
    if file is not None and str(file) == "-" and records is not None and records.file in (None, file):
        raise InputError("standard input is either the queries or the texts: give --file or --index")
    return Records([] if query is None else [query], file, field if query is None else None, skip_errors)


def _answered(
    model: Encoder,
    questions: Records,
    documents: Iterator[Document] | SearchIndex,
    prompts: tuple[str | None, str | None],
    top_k: int,
) -> Iterator[tuple[Record, list[Hit]]]:
    """Each query with its hits; `prompts` are for queries and for documents."""
    from triform.cli.outputs.progress import alongside
    from triform.runtime.encoder.vectors.search import search

    def find(records: Iterator[Record]) -> Iterator[list[Hit]]:
        queries, (query_prompt, document_prompt) = (record.text for record in records), prompts
        return search(
            model, queries, documents, query_prompt=query_prompt, document_prompt=document_prompt, top_k=top_k
        )

    return alongside(questions, find)


def _records(file: Path | None, field: str | None, index: Path | None, skip_errors: bool) -> Records | None:
    """The records to search; None to search an existing index."""
    from triform.cli.inputs.records import Records
    from triform.runtime.errors import InputError, refuse_unused

    if index is None or file is not None:
        return Records([], file, field, skip_errors)
    if not index.exists():
        raise InputError(f"{index} does not exist: give --file to build it")
    refuse_unused("is for the texts of --file or standard input, and the index has its own", field=field is not None)
    return None


def _chosen(info: EmbeddingInfo, prompt: str | None, name: str | None) -> str | None:
    """The prompt that the options name; None if they name none."""
    from triform.runtime.encoder.vectors.embedding import resolve_prompt

    return None if prompt is None and name is None else resolve_prompt(info, prompt, name)


def _index(model: Encoder, folder: Path, records: Records | None, prompt: str | None, verify: When) -> SearchIndex:
    """The index in `folder`, made from the records if there is none."""
    from triform.runtime.encoder.vectors.search_index import DEFAULT_FIELD, SearchIndex, build_index, describe_file

    field = records.field or DEFAULT_FIELD if records is not None and records.is_json else None
    file = None if records is None else records.file
    if file is None or folder.exists():
        index = SearchIndex(folder, verify)
        index.check(model, prompt)
        if file is not None:
            index.check_source(file, field)
        return index
    source = describe_file(file)
    build_index(folder, model, _documents(records), prompt=prompt, field=field, source=source)
    return SearchIndex(folder, verify)


def _documents(records: Records | None) -> Iterator[Document]:
    import os

    from triform.cli.outputs.progress import with_progress
    from triform.runtime.encoder.vectors.search_index import Document

    if records is not None:
        # Nothing is printed before all records are read.
        for record in with_progress(records, results_to=Path(os.devnull)):
            yield Document(record.number, record.text, record.value)
        # An index or a result must not come from only some of the records.
        records.check()


def _print_all(question: Record, hits: list[Hit]) -> None:
    import json

    results = [_object(rank, hit) for rank, hit in enumerate(hits, 1)]
    print(json.dumps({**(question.value or {"query": question.text}), "results": results}))


def _object(rank: int, hit: Hit) -> dict[str, Any]:
    document = hit.document
    ranking = {"rank": rank, "number": document.number, "score": hit.score}
    return {**(document.value or {"text": document.text}), **ranking}


def _print(rank: int, hit: Hit, as_json: bool) -> None:
    document = hit.document
    if as_json:
        import json

        print(json.dumps(_object(rank, hit)))
    else:
        print(f"{hit.score:.4f}\t{document.number}\t{' '.join(document.text.split())}")
