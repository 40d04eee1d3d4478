"""``triform bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from triform.cli.arguments.common import Bundle
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.runtime.opening import LoadOptions

HELP = """Measure how fast a bundle runs on this machine, and how much memory it takes.

\b
  triform bench BUNDLE
  triform bench BUNDLE --tokens 2048 --new-tokens 128 --threads 2
  triform bench ENCODER --tokens 64 --batch 32 --json
  triform bench SPEECH_MODEL --file talk.mp3
  triform bench IMAGE_MODEL --file photo.jpg

Figures are medians over --runs, after one run that is not counted. Latencies are given as median, 90th and 99th
percentile: of the first token and of further ones, or of a single text or image. Close other programs first.
"""


@with_loading_options
def run(
    bundle: Bundle = None,
    file: Annotated[
        Optional[Path], typer.Option(help="The text, image or recording to run; a made-up text by default.")
    ] = None,
    tokens: Annotated[
        Optional[int], typer.Option(help="Length of the text; 512 for prompts, 128 for other models by default.")
    ] = None,
    new_tokens: Annotated[int, typer.Option(help="Tokens to generate.")] = 64,
    batch: Annotated[int, typer.Option(help="Texts or images in a batch, for encoders.")] = 32,
    runs: Annotated[int, typer.Option(help="Times to measure.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    import time

    from triform.cli.arguments.bundle import at_least_one, bundle_and_prompt
    from triform.cli.commands.machine.measurements import Work, measure
    from triform.runtime.machine.memory import peak_memory
    from triform.runtime.opening import load

    counts = {"--tokens": tokens, "--new-tokens": new_tokens, "--batch": batch, "--runs": runs}
    for option, value in counts.items():
        at_least_one(option, value)
    folder = bundle_and_prompt(bundle, None)[0]
    start = time.perf_counter()
    model = load(folder, **loading)
    seconds = time.perf_counter() - start
    figures = {"form": model.manifest.form, "task": model.manifest.task, "load_seconds": seconds}
    figures |= measure(model, Work(file, tokens, new_tokens, batch, runs))
    figures["peak_memory_bytes"] = peak_memory()
    _print_json(figures) if as_json else _print(figures)
    return 0


def _print_json(figures: dict[str, Any]) -> None:
    import json

    print(json.dumps(figures))


def _print(figures: dict[str, Any]) -> None:
    from triform.cli.outputs.tables import rows

    print(rows((key.replace("_", " ").removesuffix(" bytes"), _shown(key, value)) for key, value in figures.items()))


def _shown(key: str, value: Any) -> str:
    from triform.cli.outputs.tables import megabytes

    if value is None:
        return "unknown"
    if isinstance(value, dict):
        return ", ".join(f"{name} {1000 * number:.1f} ms" for name, number in value.items())
    if key.endswith("_bytes"):
        return megabytes(value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)
