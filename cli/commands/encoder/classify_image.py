"""``triform classify-image``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import Bundle
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.runtime.encoder.model import Encoder
    from triform.runtime.opening import LoadOptions

HELP = """Classify images.

\b
  triform classify-image BUNDLE cat.jpg dog.png --top-k 3
  triform classify-image CLIP_BUNDLE cat.jpg --labels cat,dog,horse
  cat cat.jpg | triform classify-image BUNDLE -
  triform classify-image BUNDLE *.jpg --json > labeled.jsonl

One line per label: score, label, image, separated by tabs; the best label of an image first.
--labels gives your own labels (zero-shot), for a model trained on images and captions, such as CLIP or SigLIP.
"""


@with_loading_options
def run(
    bundle: Bundle = None,
    images: Annotated[Optional[list[str]], typer.Argument(help="Image files; - is standard input.")] = None,
    labels: Annotated[Optional[str], typer.Option(help="Your own labels, separated by commas.")] = None,
    template: Annotated[Optional[str], typer.Option(help='Caption for a label; "a photo of {}." by default.')] = None,
    top_k: Annotated[
        Optional[int], typer.Option(help="Number of labels to show; 1 by default, all of --labels.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per image.")] = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import at_least_one, bundle_and_texts
    from triform.runtime.errors import InputError, refuse_unused
    from triform.runtime.opening import load_encoder

    at_least_one("--top-k", top_k)
    refuse_unused("needs --labels", template=template is not None and labels is None)
    folder, images = bundle_and_texts(bundle, images)
    if not images:
        raise InputError("no images: give files, or - for standard input")
    model = load_encoder(folder, **loading)
    results = _results(model, images, labels, template)
    most = top_k or (1 if labels is None else None)
    for name, result in zip(images, results, strict=True):
        (_print_json if as_json else _print)(name, result[:most])
    return 0


def _results(
    model: Encoder, names: Sequence[str], labels: str | None, template: str | None
) -> Iterator[list[tuple[str, float]]]:
    from triform.runtime.encoder.image_classification import LABEL_TEMPLATE, OWN_LABELS, classify_images, match_labels
    from triform.runtime.encoder.vectors.image_embedding import ANY_LABELS
    from triform.runtime.errors import InputError

    images = (sys.stdin.buffer.read() if name == "-" else name for name in names)
    if labels is None:
        if model.manifest.task == ANY_LABELS:
            raise InputError("this model has no labels of its own; give some with --labels")
        return classify_images(model, images)
    if model.manifest.task == OWN_LABELS:
        raise InputError("this model has labels of its own; leave --labels out")
    own = [label.strip() for label in labels.split(",") if label.strip()]
    return match_labels(model, images, own, template=LABEL_TEMPLATE if template is None else template)


def _print(name: str, result: Sequence[tuple[str, float]]) -> None:
    for label, score in result:
        print(f"{score:.4f}\t{label}\t{name}")


def _print_json(name: str, result: Sequence[tuple[str, float]]) -> None:
    import json

    print(json.dumps({"image": name, "labels": [{"label": label, "score": score} for label, score in result]}))
