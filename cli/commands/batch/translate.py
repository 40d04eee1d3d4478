"""``triform batch translate``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated, Optional

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

HELP = """Translate the texts in any number of files, line by line.

\b
  triform batch translate BUNDLE --input 'data/*.parquet' --column body --output out/ --target-lang de

Adds the columns "translation_text" and "finish_reason" to the input's rows. docs/cluster.md says what the folder holds.
"""


@with_generation_options(ENCODER_DECODER, BEAMS)
@with_batch_options("text")
@with_loading_options
def run(
    *,
    batch: BatchRun,
    source_lang: Annotated[Optional[str], typer.Option(help="Language of the texts.")] = None,
    target_lang: Annotated[Optional[str], typer.Option(help="Language to translate into.")] = None,
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
    from triform.runtime.batch.text_tasks import TranslateTask, Writing
    from triform.runtime.encoder_decoder.ask import Ask
    from triform.runtime.errors import InputError

    at_least_one("--batch", at_once)
    if (task or prefix) and (source_lang or target_lang):
        raise InputError("--task and --prefix say what to do instead of the languages; leave one of the two out")
    languages = partial(Ask, source_lang=source_lang, target_lang=target_lang)
    writing = Writing(chosen(task, prefix, languages), options, beams, at_once, strict)
    return run_batch(batch, TranslateTask(writing), loading)
