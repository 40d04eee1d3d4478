"""``triform batch embed``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.batch import with_batch_options
from triform.cli.arguments.common import Strict
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.cli.batch.run import BatchRun
    from triform.runtime.opening import LoadOptions

HELP = """Compute embeddings of the texts in any number of files.

\b
  triform batch embed BUNDLE --input 'data/*.parquet' --column body --output vectors/
  triform batch embed BUNDLE --input reviews.jsonl --output vectors/ --dimensions 128 --output-dtype int8

Adds the column "embedding" to the input's rows. docs/cluster.md says what the folder holds.
"""


@with_batch_options("text")
@with_loading_options
def run(
    *,
    batch: BatchRun,
    prompt: Annotated[Optional[str], typer.Option(help="Put this before each text.")] = None,
    prompt_name: Annotated[
        Optional[str], typer.Option(help="Put the model's prompt of this name before each text.")
    ] = None,
    dimensions: Annotated[Optional[int], typer.Option(help="Truncate each vector to this many numbers.")] = None,
    output_dtype: Annotated[str, typer.Option(help="float32, float16, int8 or binary.")] = "float32",
    strict: Strict = False,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.batch.run import run_batch
    from triform.runtime.batch.encoder_tasks import EmbedTask

    return run_batch(batch, EmbedTask(prompt, prompt_name, dimensions, output_dtype, strict), loading)
