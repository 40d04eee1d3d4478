"""``triform batch tag``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.batch import with_batch_options
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.cli.batch.run import BatchRun
    from triform.runtime.opening import LoadOptions

HELP = """Find named entities and other spans in the texts of any number of files.

\b
  triform batch tag BUNDLE --input 'letters/*.jsonl' --column body --output tagged/

Adds the column "tags" to the input's rows: label, score, start, end and text of each span. docs/cluster.md says what
the folder holds.
"""


@with_batch_options("text")
@with_loading_options
def run(
    *,
    batch: BatchRun,
    aggregation: Annotated[
        str, typer.Option(help="none: each token; simple: groups of tokens; first, average, max: whole words.")
    ] = "simple",
    stride: Annotated[Optional[int], typer.Option(help="Overlap of windows in tokens; a quarter by default.")] = None,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.batch.run import run_batch
    from triform.runtime.batch.encoder_tasks import TagTask

    return run_batch(batch, TagTask(aggregation, stride), loading)
