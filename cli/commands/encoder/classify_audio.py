"""``triform classify-audio``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import Bundle
from triform.cli.arguments.loading import with_loading_options
from triform.cli.outputs.notes import say

if TYPE_CHECKING:
    from triform.runtime.opening import LoadOptions

HELP = """Classify recordings.

\b
  triform classify-audio BUNDLE dog.wav street.mp3 --top-k 3
  cat dog.wav | triform classify-audio BUNDLE -
  triform classify-audio BUNDLE *.wav --json > labeled.jsonl

One line per label: score, label, recording, separated by tabs; the best label of a recording first. Each recording is
run as a whole, so cut long ones before. Needs the extra audio.
"""


@with_loading_options
def run(
    bundle: Bundle = None,
    audio: Annotated[
        Optional[list[str]], typer.Argument(help="Audio files; - is standard input.", metavar="AUDIO...")
    ] = None,
    top_k: Annotated[Optional[int], typer.Option(help="Number of labels to show; 1 by default.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per recording.")] = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import at_least_one, bundle_and_texts
    from triform.runtime.encoder.audio_classification import classify_audio
    from triform.runtime.errors import InputError
    from triform.runtime.opening import load_encoder

    at_least_one("--top-k", top_k)
    folder, names = bundle_and_texts(bundle, audio)
    if not names:
        raise InputError("no recording: name audio files, or - for standard input")
    model = load_encoder(folder, **loading)
    results = classify_audio(model, names, lambda warning: say(f"note: {warning}"))
    for name, result in zip(names, results, strict=True):
        (_print_json if as_json else _print)(name, result[: top_k or 1])
    return 0


def _print(name: str, result: Sequence[tuple[str, float]]) -> None:
    for label, score in result:
        print(f"{score:.4f}\t{label}\t{name}")


def _print_json(name: str, result: Sequence[tuple[str, float]]) -> None:
    import json

    print(json.dumps({"audio": name, "labels": [{"label": label, "score": score} for label, score in result]}))
