"""``triform embed``."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from triform.cli.arguments.common import Bundle, Field, Provider, ProviderOptions, SkipErrors, Strict, Threads, Verify

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record, Records
    from triform.runtime.encoder.model import Encoder

    # What was read ("text" or "image"), how many numbers a vector has, and the vectors.
    Embedded = tuple[str, int, Iterator[tuple[Record, Any]]]

HELP = """Compute embeddings of texts or images.

\b
  triform embed BUNDLE "A cat on a mat." "Ein Hund im Park."
  triform embed BUNDLE --file texts.txt --output vectors.npy
  triform embed BUNDLE --file texts.jsonl --field body --prompt-name query > vectors.jsonl
  cat texts.txt | triform embed BUNDLE --dimensions 128 --output-dtype int8 --output vectors.npy
  triform embed BUNDLE --image cat.jpg dog.png > vectors.jsonl
  find photos -name '*.jpg' | triform embed BUNDLE --image --skip-errors --output photos.npy

One JSON object per text: {"text": ..., "embedding": [...]}; for JSON input, the object read with "embedding" added.
With --image the arguments or lines name image files, and the output is {"image": ...}; - is an image on standard input.
A bundle that reads no text needs no --image. CLIP and similar models embed texts and images, in separate runs, into one
space. --dimensions truncates each vector to its first numbers; the model should be trained for that. If the model
normalizes its vectors to length 1, truncated ones are normalized again.
--output-dtype int8 normalizes vectors; 127 then stands for 8 / sqrt(dimensions), or for 1 if that is less.
binary is one bit per number, set above 0, packed into int8 bytes as sentence-transformers does.
"""


def run(
    bundle: Bundle = None,
    inputs: Annotated[
        Optional[list[str]], typer.Argument(help="Texts, or image files; the lines of standard input by default.")
    ] = None,
    image: Annotated[bool, typer.Option("--image", help="The inputs are image files.")] = False,
    file: Annotated[Optional[Path], typer.Option(help="Read texts or names from a file: lines, .jsonl, …")] = None,
    field: Field = None,
    prompt: Annotated[Optional[str], typer.Option(help="Put this before each text.")] = None,
    prompt_name: Annotated[
        Optional[str], typer.Option(help="Put the model's prompt of this name before each text.")
    ] = None,
    dimensions: Annotated[Optional[int], typer.Option(help="Truncate each vector to this many numbers.")] = None,
    output_dtype: Annotated[str, typer.Option(help="float32, float16, int8 or binary.")] = "float32",
    output: Annotated[Optional[Path], typer.Option(help="Write to a file, which appears when it is complete.")] = None,
    output_format: Annotated[
        Optional[str],
        typer.Option("--format", help="jsonl, npy or raw; by default npy for a .npy file, else jsonl."),
    ] = None,
    skip_errors: SkipErrors = False,
    strict: Strict = False,
    provider: Provider = "auto",
    provider_option: ProviderOptions = None,
    threads: Threads = None,
    verify: Verify = "once",
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_texts, key_values
    from triform.cli.inputs.records import Records
    from triform.cli.outputs.notes import end_inputs
    from triform.runtime.encoder.vectors.quantization import check_dtype, quantize, storage
    from triform.runtime.opening import load_encoder

    check_dtype(output_dtype)
    chosen = _format(output_format, output)
    folder, inputs = bundle_and_texts(bundle, inputs)
    records = Records(inputs, file, field, skip_errors)
    options = key_values(provider_option)
    model = load_encoder(
        folder, provider=provider, provider_options=options, threads=threads, verify=verify, strict=strict
    )
    if image or model.rows is None:
        _check_options(prompt=prompt, prompt_name=prompt_name, strict=strict or None)
        kind, width, pairs = _of_pictures(model, records, dimensions, output)
    else:
        kind, width, pairs = _of_texts(model, records, (prompt, prompt_name), dimensions, output)
    vectors = ((record, quantize(vector, output_dtype)) for record, vector in _all_or_error(pairs, records))
    if chosen == "jsonl":
        _write_lines(kind, vectors, output)
    else:
        _write_numbers((vector for _, vector in vectors), chosen, output, *storage(width, output_dtype))
    end_inputs(records, model.rows)
    return 0


def _all_or_error(pairs: Iterator[tuple[Record, Any]], records: Records) -> Iterator[tuple[Record, Any]]:
    """The vectors, then the error that ended the reading early, if any: it must come before a file gets its name."""
    yield from pairs
    records.check()


def _of_texts(
    model: Encoder,
    records: Records,
    prompts: tuple[str | None, str | None],
    dimensions: int | None,
    output: Path | None,
) -> Embedded:
    from triform.cli.outputs.progress import alongside, with_progress
    from triform.runtime.encoder.vectors.embedding import embed, embedding_info, width_of

    def vectors_of(some: Iterator[Record]) -> Iterator[Any]:
        texts, (prompt, prompt_name) = (record.text for record in some), prompts
        return embed(model, texts, prompt=prompt, prompt_name=prompt_name, dimensions=dimensions)

    shown = with_progress(records, results_to=output)
    return "text", width_of(embedding_info(model), dimensions), alongside(shown, vectors_of)


def _of_pictures(model: Encoder, records: Records, dimensions: int | None, output: Path | None) -> Embedded:
    from triform.cli.outputs.progress import alongside, with_progress
    from triform.runtime.encoder.vectors.embedding import width_of
    from triform.runtime.encoder.vectors.image_embedding import embed_pixels, image_embedding_info

    width = width_of(image_embedding_info(model), dimensions)
    opened = records.use(with_progress(records, results_to=output), lambda record: _pixels(model, record))
    vectors = alongside(opened, lambda some: embed_pixels(model, (pixels for _, pixels in some), dimensions=dimensions))
    return "image", width, ((record, vector) for (record, _), vector in vectors)


def _pixels(model: Encoder, record: Record) -> Any:
    from triform.runtime.encoder.vectors.image_embedding import pixels_of

    return pixels_of(model, sys.stdin.buffer.read() if record.text == "-" else record.text)


def _check_options(**options: object) -> None:
    """Refuse options that are not for images."""
    from triform.runtime.errors import InputError

    for name, value in options.items():
        if value is not None:
            raise InputError(f"--{name.replace('_', '-')} is for texts; leave it out for pictures")


def _format(name: str | None, output: Path | None) -> str:
    from triform.runtime.errors import InputError

    if name is None:
        return "npy" if output is not None and output.suffix == ".npy" else "jsonl"
    if name not in ("jsonl", "npy", "raw"):
        raise InputError(f"--format must be jsonl, npy or raw, not {name}")
    if name == "npy" and output is None:
        raise InputError("--format npy needs --output: the number of rows, which comes first, is known at the end")
    return name


def _write_lines(kind: str, pairs: Iterable[tuple[Record, Any]], output: Path | None) -> None:
    from triform.runtime.files import whole_file

    lines = (_line(record.value or {kind: record.text}, vector) for record, vector in pairs)
    if output is None:
        sys.stdout.writelines(lines)
        return
    with whole_file(output) as file:
        file.writelines(line.encode() for line in lines)


def _line(value: dict[str, Any], vector: Any) -> str:
    import json

    rest = json.dumps({key: item for key, item in value.items() if key != "embedding"})[1:-1]
    # Enough digits to restore every float32 exactly.
    numbers = ", ".join(["%.9g" if vector.dtype.kind == "f" else "%d"] * len(vector)) % tuple(vector.tolist())
    return f'{{{rest}{", " if rest else ""}"embedding": [{numbers}]}}\n'


def _write_numbers(vectors: Iterator[Any], name: str, output: Path | None, width: int, dtype: str) -> None:
    from triform.runtime.files import whole_file, write_npy, write_raw

    if output is None:
        write_raw(sys.stdout.buffer, vectors)
        return
    with whole_file(output) as file:
        if name == "raw":
            write_raw(file, vectors)
        else:
            write_npy(file, vectors, width, dtype)
