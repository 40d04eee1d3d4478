"""``triform similarity``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from triform.cli.arguments.common import Bundle, SkipErrors, Strict
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.cli.inputs.formats import Format
    from triform.cli.inputs.records import Record
    from triform.runtime.encoder.model import Encoder
    from triform.runtime.opening import LoadOptions

HELP = """Compare texts by meaning.

\b
  triform similarity BUNDLE "A cat on a mat." "A kitten on a rug."
  triform similarity BUNDLE "red" "green" "blue" --json
  triform similarity BUNDLE --file pairs.tsv
  triform similarity BUNDLE --file pairs.jsonl --fields sentence1,sentence2 --json

Prints the cosine similarity of two texts, from -1 to 1; of more texts, a table of all pairs.
A file has one pair per line: two texts separated by a tab, or a JSON object with the fields text1 and text2.
"""


@with_loading_options
def run(
    bundle: Bundle = None,
    texts: Annotated[Optional[list[str]], typer.Argument(help="Two or more texts.")] = None,
    file: Annotated[
        Optional[Path], typer.Option(help="Read pairs from a file, one per line; - is standard input.")
    ] = None,
    fields: Annotated[Optional[str], typer.Option(help="The two fields or columns that hold the texts.")] = None,
    prompt: Annotated[Optional[str], typer.Option(help="Put this before each text.")] = None,
    prompt_name: Annotated[
        Optional[str], typer.Option(help="Put the model's prompt of this name before each text.")
    ] = None,
    skip_errors: SkipErrors = False,
    strict: Strict = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON: one object per pair, or one with all texts.")
    ] = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_texts
    from triform.cli.inputs.records import Records
    from triform.cli.outputs.notes import end_inputs
    from triform.runtime.encoder.vectors.embedding import embedding_info, resolve_prompt
    from triform.runtime.errors import InputError, refuse_unused
    from triform.runtime.opening import load_encoder

    folder, texts = bundle_and_texts(bundle, texts)
    if file is None and len(texts) < 2:
        raise InputError("nothing to compare: give two texts or more, or pairs with --file")
    refuse_unused("is for files, and the texts are arguments", fields=file is None and fields is not None)
    names = None if file is None else _names(fields, file)
    layout: Format | None = None if names else "lines"
    records = Records(texts, file, names[0] if names else None, skip_errors, format=layout)
    model = load_encoder(folder, strict=strict, **loading)
    prompt = resolve_prompt(embedding_info(model), prompt, prompt_name)
    if file is None:
        _compare_all(model, texts, prompt, as_json)
    else:
        pairs = (pair for _, pair in records.use(records, lambda record: _pair(record, names)))
        _compare_pairs(model, pairs, prompt, as_json)
    end_inputs(records, model.reader())
    return 0


def _names(fields: str | None, file: Path | None) -> tuple[str, str] | None:
    """The two fields of JSON objects that hold texts; None for lines of text."""
    from triform.cli.inputs.formats import file_format
    from triform.runtime.errors import InputError

    if fields is None:
        return ("text1", "text2") if file_format(file, None) in ("json", "csv") else None
    first, comma, second = (part.strip() for part in fields.partition(","))
    if not first or not comma or not second or "," in second:
        raise InputError(f"--fields must be two names separated by a comma, not {fields!r}")
    return first, second


def _pair(record: Record, names: tuple[str, str] | None) -> tuple[dict[str, Any], str, str]:
    """The two texts of a record, and the object to print them with.

    Raises:
        InputError: there are not two.
    """
    from triform.runtime.errors import InputError
    from triform.runtime.text.checks import invalid_at

    if names is None:
        first, tab, second = record.text.partition("\t")
        if not tab or "\t" in second:
            raise InputError("it is not two texts separated by a tab")
        return {"text1": first, "text2": second}, first, second
    value = record.value or {}
    other = value.get(names[1])
    if not isinstance(other, str):
        raise InputError(f"it is not an object with a text called {names[1]!r}")
    if invalid_at(other) is not None:
        raise InputError(f"its {names[1]!r} is not valid Unicode")
    return value, record.text, other


def _compare_pairs(
    model: Encoder, pairs: Iterator[tuple[dict[str, Any], str, str]], prompt: str, as_json: bool
) -> None:
    import json

    from triform.cli.outputs.progress import alongside
    from triform.runtime.arithmetic import cosines
    from triform.runtime.encoder.vectors.embedding import embed

    def vectors_of(some: Iterator[tuple[dict[str, Any], str, str]]) -> Iterator[tuple[Any, Any]]:
        vectors = embed(model, (text for _, *both in some for text in both), prompt=prompt)
        # The same iterator twice: two vectors per pair.
        return zip(vectors, vectors, strict=True)

    for (value, *_), (left, right) in alongside(pairs, vectors_of):
        score = float(cosines(left, right))
        print(json.dumps({**value, "similarity": score}) if as_json else f"{score:.4f}")


def _compare_all(model: Encoder, texts: list[str], prompt: str, as_json: bool) -> None:
    from triform.runtime.encoder.vectors.embedding import similarities

    table = similarities(model, texts, prompt=prompt).tolist()
    if as_json:
        import json

        pair = {"text1": texts[0], "text2": texts[1], "similarity": table[0][1]}
        print(json.dumps(pair if len(texts) == 2 else {"texts": texts, "similarities": table}))
    elif len(texts) == 2:
        print(f"{table[0][1]:.4f}")
    else:
        for row in table:
            print("\t".join(f"{score:.4f}" for score in row))
