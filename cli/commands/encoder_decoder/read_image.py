"""``triform read-image``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from triform.cli.arguments.common import Bundle
from triform.cli.arguments.generation import BEAMS, DECODER, with_generation_options
from triform.cli.arguments.loading import with_loading_options
from triform.cli.commands.encoder_decoder.text_to_text import AsJson

if TYPE_CHECKING:
    from triform.cli.inputs.records import Record
    from triform.runtime.encoder_decoder.model import EncoderDecoder
    from triform.runtime.generation.answers import Completion
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions
    from triform.runtime.opening import LoadOptions

HELP = """Read the text in images, or caption them, with models such as TrOCR.

\b
  triform read-image BUNDLE line.png
  triform read-image BUNDLE scans/*.png --num-beams 4 --json > read.jsonl
  find scans -name '*.png' | triform read-image BUNDLE --skip-errors
  cat line.png | triform read-image BUNDLE -

One line per image, in the order given. Models that read text expect an image of a single line of text.
"""


@with_generation_options(DECODER, BEAMS)
@with_loading_options
def run(
    bundle: Bundle = None,
    images: Annotated[Optional[list[str]], typer.Argument(help="Image files; - is an image on standard input.")] = None,
    file: Annotated[Optional[Path], typer.Option(help="Read the names of images from a file, one per line.")] = None,
    batch: Annotated[int, typer.Option(help="Images to run at once.")] = 8,
    skip_errors: Annotated[bool, typer.Option("--skip-errors", help="Skip images that cannot be used.")] = False,
    as_json: AsJson = False,
    *,
    loading: LoadOptions,
    beams: Beams,
    options: GenerationOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import bundle_and_texts
    from triform.cli.inputs.records import Records
    from triform.cli.outputs.notes import end_inputs
    from triform.cli.outputs.progress import alongside, with_progress
    from triform.runtime.encoder_decoder.image_reading import image_info_of, read_pixels
    from triform.runtime.opening import load_encoder_decoder

    folder, images = bundle_and_texts(bundle, images)
    records = Records(images, file, None, skip_errors)
    model = load_encoder_decoder(folder, **loading)
    image_info_of(model)
    shown = with_progress(records, results_to=None)
    opened = records.use(shown, lambda record: _pixels(model, record))
    answers = alongside(
        opened, lambda some: read_pixels(model, (pixels for _, pixels in some), options, beams=beams, batch=batch)
    )
    for (record, _), completion in answers:
        (_print_json if as_json else _print)(record.text, completion)
    end_inputs(records, None)
    return 0


def _pixels(model: EncoderDecoder, record: Record) -> Any:
    from triform.runtime.encoder_decoder.image_reading import image_info_of
    from triform.runtime.media.image import image_inputs

    image = sys.stdin.buffer.read() if record.text == "-" else record.text
    return image_inputs(image, image_info_of(model))["pixel_values"]


def _print(name: str, completion: Completion) -> None:
    print(" ".join(completion.text.split()))


def _print_json(name: str, completion: Completion) -> None:
    import json

    value: dict[str, Any] = {
        "image": name,
        "generated_text": completion.text,
        "finish_reason": completion.finish_reason,
    }
    if completion.score is not None:
        value["score"] = completion.score
    print(json.dumps(value))
