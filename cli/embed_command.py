"""``triform embed``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from triform.cli.arguments import Bundle, Field, Provider, ProviderOptions, SkipErrors, Strict, TextFile, Texts, Threads

if TYPE_CHECKING:
    from triform.cli.records import Record

HELP = """Turn texts into vectors.

\b
  triform embed BUNDLE "A cat on a mat." "Ein Hund im Park."
  triform embed BUNDLE --file texts.txt --output vectors.npy
  triform embed BUNDLE --file texts.jsonl --field body --prompt-name query > vectors.jsonl
  cat texts.txt | triform embed BUNDLE --dimensions 128 --output-dtype int8 --output vectors.npy

One JSON object a text: {"text": ..., "embedding": [...]}; with JSON input the object that was read, and "embedding".
--dimensions keeps the first numbers of each vector; the model should be trained for that. Vectors of models that give
length 1 are scaled to length 1 again.
--output-dtype int8 scales vectors to length 1; 127 then stands for 8 / sqrt(dimensions), or for 1 if that is less.
binary is one bit a number, set above 0, packed into int8 bytes as sentence-transformers does.
"""


def run(
    bundle: Bundle = None,
    texts: Texts = None,
    file: TextFile = None,
    field: Field = None,
    prompt: Annotated[Optional[str], typer.Option(help="Put this before each text.")] = None,
    prompt_name: Annotated[Optional[str], typer.Option(help="Put the model's prompt of this name there.")] = None,
    dimensions: Annotated[Optional[int], typer.Option(help="Keep the first so many numbers of each vector.")] = None,
    output_dtype: Annotated[str, typer.Option(help="float32, float16, int8 or binary.")] = "float32",
    output: Annotated[Optional[Path], typer.Option(help="Write to a file, which appears when it is whole.")] = None,
    output_format: Annotated[
        Optional[str],
        typer.Option("--format", help="jsonl, npy or raw; npy for a file called .npy, else jsonl, when not given."),
    ] = None,
    skip_errors: SkipErrors = False,
    strict: Strict = False,
    provider: Provider = "auto",
    provider_option: ProviderOptions = None,
    threads: Threads = None,
) -> int:
    """Parse, call, render."""
    from itertools import tee

    from triform.cli.notes import say_left_out
    from triform.cli.options import bundle_and_texts, key_values
    from triform.cli.progress import with_progress
    from triform.cli.records import Records
    from triform.runtime.embedding import check_dtype, embed, embedding_info, quantize, storage
    from triform.runtime.opening import load_encoder

    check_dtype(output_dtype)
    chosen = _format(output_format, output)
    folder, given = bundle_and_texts(bundle, texts)
    records = Records(given, file, field, skip_errors)
    options = key_values(provider_option)
    model = load_encoder(folder, provider=provider, provider_options=options, threads=threads, strict=strict)
    first, second = tee(with_progress(records, results_to=output))
    found = embed(
        model, (record.text for record in first), prompt=prompt, prompt_name=prompt_name, dimensions=dimensions
    )
    vectors = (quantize(vector, output_dtype) for vector in found)
    if chosen == "jsonl":
        _write_lines(zip(second, vectors, strict=True), output)
    else:
        # Nothing reads the other half of the tee, which would keep every text.
        del second
        shape = storage(dimensions or embedding_info(model).dimension, output_dtype)
        _write_numbers(vectors, chosen, output, *shape)
    say_left_out(records, model.reader())
    return 0


def _format(name: str | None, output: Path | None) -> str:
    from triform.runtime.errors import InputError

    if name is None:
        return "npy" if output is not None and output.suffix == ".npy" else "jsonl"
    if name not in ("jsonl", "npy", "raw"):
        raise InputError(f"--format must be jsonl, npy or raw, not {name}")
    if name == "npy" and output is None:
        raise InputError("--format npy needs --output: the number of rows, which comes first, is known at the end")
    return name


def _write_lines(found: Iterable[tuple[Record, Any]], output: Path | None) -> None:
    from triform.runtime.vector_files import whole_file

    lines = (_line(record, vector) for record, vector in found)
    if output is None:
        sys.stdout.writelines(lines)
        return
    with whole_file(output) as file:
        file.writelines(line.encode() for line in lines)


def _line(record: Record, vector: Any) -> str:
    import json

    value = record.value or {"text": record.text}
    rest = json.dumps({key: item for key, item in value.items() if key != "embedding"})[1:-1]
    # As many digits as tell every float32 from its neighbors.
    numbers = ", ".join(["%.9g" if vector.dtype.kind == "f" else "%d"] * len(vector)) % tuple(vector.tolist())
    return f'{{{rest}{", " if rest else ""}"embedding": [{numbers}]}}\n'


def _write_numbers(vectors: Iterator[Any], name: str, output: Path | None, width: int, dtype: str) -> None:
    from triform.runtime.vector_files import whole_file, write_npy, write_raw

    if output is None:
        write_raw(sys.stdout.buffer, vectors)
        return
    with whole_file(output) as file:
        if name == "raw":
            write_raw(file, vectors)
        else:
            write_npy(file, vectors, width, dtype)
