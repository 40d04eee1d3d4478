"""``triform batch classify``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.batch import with_batch_options
from triform.cli.arguments.common import Strict
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.cli.batch.run import BatchRun
    from triform.runtime.opening import LoadOptions

HELP = """Classify the texts in any number of files.

\b
  triform batch classify BUNDLE --input 'data/*.parquet' --column review --output labeled/
  triform batch classify NLI_BUNDLE --input news.csv --labels sports,politics,weather --top-k 3 --output labeled/

Adds the column "labels" to the input's rows: labels and scores, the best first. docs/cluster.md says what the folder
holds.
"""


@with_batch_options("text")
@with_loading_options
def run(
    *,
    batch: BatchRun,
    top_k: Annotated[int, typer.Option(help="Number of labels to keep.")] = 1,
    labels: Annotated[Optional[str], typer.Option(help="Your own labels, separated by commas.")] = None,
    hypothesis_template: Annotated[
        Optional[str], typer.Option(help='Hypothesis for a label; "This example is {}." by default.')
    ] = None,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="More than one of --labels may fit a text.")
    ] = False,
    strict: Strict = False,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.batch.run import run_batch
    from triform.runtime.batch.encoder_tasks import ClassifyTask

    own = tuple(label.strip() for label in (labels or "").split(",") if label.strip())
    return run_batch(batch, ClassifyTask(top_k, own, hypothesis_template, multi_label, strict), loading)
