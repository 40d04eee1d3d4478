"""``triform batch rewrite``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from triform.cli.arguments.batch import with_batch_options
from triform.cli.arguments.common import Strict
from triform.cli.arguments.generation import BEAMS, ENCODER_DECODER, with_generation_options
from triform.cli.arguments.loading import with_loading_options
from triform.cli.commands.encoder_decoder.text_to_text import Prefix, Task, chosen

if TYPE_CHECKING:
    from triform.cli.batch.run import BatchRun
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions
    from triform.runtime.opening import LoadOptions

HELP = """Run a text-to-text model over the texts in any number of files.

\b
  triform batch rewrite BUNDLE --input 'data/*.parquet' --column body --output out/

Adds the columns "generated_text" and "finish_reason" to the input's rows. docs/cluster.md says what the folder holds.
"""


@with_generation_options(ENCODER_DECODER, BEAMS)
@with_batch_options("text")
@with_loading_options
def run(
    *,
    batch: BatchRun,
    task: Task = None,
    prefix: Prefix = None,
    at_once: Annotated[int, typer.Option("--batch", help="Texts to run at once.")] = 8,
    strict: Strict = False,
    loading: LoadOptions,
    beams: Beams,
    options: GenerationOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import at_least_one
    from triform.cli.batch.run import run_batch
    from triform.runtime.batch.text_tasks import RewriteTask, Writing
    from triform.runtime.encoder_decoder.ask import Ask

    at_least_one("--batch", at_once)
    writing = Writing(chosen(task, prefix, Ask), options, beams, at_once, strict)
    return run_batch(batch, RewriteTask(writing), loading)
