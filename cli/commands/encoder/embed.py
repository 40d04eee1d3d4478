"""``triform embed``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from triform.cli.arguments.common import Bundle, Field, SkipErrors, Strict
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record, Records
    from triform.runtime.encoder.model import Encoder
    from triform.runtime.opening import LoadOptions


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
A model that reads where words stand takes pages from a .jsonl file, see triform tag --help.
A bundle that reads no text needs no --image. CLIP and similar models embed texts and images, in separate runs, into one
space. --dimensions truncates each vector to its first numbers; the model should be trained for that. If the model
normalizes its vectors to length 1, truncated ones are normalized again.
--output-dtype int8 normalizes vectors; 127 then stands for 8 / sqrt(dimensions), or for 1 if that is less.
binary is one bit per number, set above 0, packed into int8 bytes as sentence-transformers does.
"""


@with_loading_options
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
    resume: Annotated[
        bool, typer.Option("--resume", help="With --output: continue after the vectors of an unfinished run.")
    ] = False,
    strict: Strict = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_texts
    from triform.cli.inputs.records import Records
    from triform.cli.outputs.notes import end_inputs
    from triform.cli.outputs.part_file import check_not_read
    from triform.cli.outputs.run_log import Run
    from triform.cli.outputs.vectors_file import lines_of_vectors, rows_of_vectors
    from triform.runtime.encoder.vectors.quantization import check_dtype, quantize, storage
    from triform.runtime.errors import refuse_unused
    from triform.runtime.opening import load_encoder

    check_dtype(output_dtype)
    chosen = _format(output_format, output)
    folder, inputs = bundle_and_texts(bundle, inputs)
    records = Records(inputs, file, field, skip_errors, pages=not image)
    model = load_encoder(folder, strict=strict, **loading)
    if image or model.rows is None:
        given = {"prompt": prompt is not None, "prompt_name": prompt_name is not None, "strict": strict}
        refuse_unused("is for texts, and these are images", **given)
        kind, width = "image", _width_of_images(model, dimensions)
        if output is not None:
            check_not_read(output, [Path(name) for name in inputs if name != "-"], None)
        vectors_of = partial(_of_images, model, records, dimensions)
    else:
        kind, width = "text", _width_of_texts(model, dimensions)
        vectors_of = partial(_of_texts, model, records, (prompt, prompt_name), dimensions)
    options = {"image": image, "prompt": prompt, "prompt_name": prompt_name, "dimensions": dimensions}
    made_with = Run(folder, options | {"output_dtype": output_dtype, "format": chosen})
    if chosen == "jsonl":
        destination = lines_of_vectors(kind, output, made_with, source=records.file, resume=resume)
    else:
        shape, npy = storage(width, output_dtype), chosen == "npy"
        destination = rows_of_vectors(*shape, output, made_with, npy=npy, source=records.file, resume=resume)
    with destination as vectors:
        for record, vector in vectors_of(output, vectors.remaining):
            vectors.write(record, quantize(vector, output_dtype))
        # Before the file is renamed: a bad line leaves it unfinished.
        end_inputs(records, model.rows)
    return 0


def _width_of_texts(model: Encoder, dimensions: int | None) -> int:
    from triform.runtime.encoder.vectors.embedding import embedding_info, width_of

    return width_of(embedding_info(model), dimensions)


def _width_of_images(model: Encoder, dimensions: int | None) -> int:
    from triform.runtime.encoder.vectors.embedding import width_of
    from triform.runtime.encoder.vectors.image_embedding import image_embedding_info

    return width_of(image_embedding_info(model), dimensions)


def _of_texts(
    model: Encoder,
    records: Records,
    prompts: tuple[str | None, str | None],
    dimensions: int | None,
    output: Path | None,
    remaining: Callable[[Iterable[tuple[Record, Any]]], Iterator[tuple[Record, Any]]],
) -> Iterator[tuple[Record, Any]]:
    from triform.cli.outputs.progress import alongside, with_progress
    from triform.runtime.encoder.vectors.embedding import embed

    def work(some: Iterator[tuple[Record, Any]]) -> Iterator[Any]:
        texts, (prompt, prompt_name) = (text for _, text in some), prompts
        return embed(model, texts, prompt=prompt, prompt_name=prompt_name, dimensions=dimensions)

    texts = ((record, record.input) for record in with_progress(records, results_to=output))
    return ((record, vector) for (record, _), vector in alongside(remaining(texts), work))


def _of_images(
    model: Encoder,
    records: Records,
    dimensions: int | None,
    output: Path | None,
    remaining: Callable[[Iterable[tuple[Record, Any]]], Iterator[tuple[Record, Any]]],
) -> Iterator[tuple[Record, Any]]:
    from triform.cli.outputs.progress import alongside, with_progress
    from triform.runtime.encoder.vectors.image_embedding import embed_pixels

    def work(some: Iterator[tuple[Record, Any]]) -> Iterator[Any]:
        return embed_pixels(model, (pixels for _, pixels in some), dimensions=dimensions)

    images = records.use(with_progress(records, results_to=output), lambda record: _pixels(model, record))
    return ((record, vector) for (record, _), vector in alongside(remaining(images), work))


def _pixels(model: Encoder, record: Record) -> Any:
    from triform.runtime.encoder.vectors.image_embedding import encoder_pixels

    return encoder_pixels(model, sys.stdin.buffer.read() if record.text == "-" else record.text)


def _format(name: str | None, output: Path | None) -> str:
    from triform.runtime.errors import InputError

    if name is None:
        return "npy" if output is not None and output.suffix == ".npy" else "jsonl"
    if name not in ("jsonl", "npy", "raw"):
        raise InputError(f"--format must be jsonl, npy or raw, not {name}")
    if name == "npy" and output is None:
        raise InputError("--format npy needs --output: the number of rows, which comes first, is known at the end")
    return name
