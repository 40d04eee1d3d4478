"""``triform batch generate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.batch import with_batch_options
from triform.cli.arguments.common import Template, TemplateVars
from triform.cli.arguments.generation import CONTEXT, DECODER, SEVERAL, with_generation_options
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.cli.batch.run import BatchRun
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions
    from triform.runtime.opening import LoadOptions

HELP = """Answer the prompts in any number of files.

\b
  triform batch generate BUNDLE --input 'data/*.parquet' --column prompt --output answers/
  triform batch generate BUNDLE --input prompts.jsonl --column prompt --max-new-tokens 200 --output answers/

Adds the columns "generated_text", "finish_reason" and "generated_tokens" to the input's rows; of a search also "score",
and "alternatives" with --num-return-sequences. docs/cluster.md says what the folder holds.
"""


@with_generation_options((*DECODER, *CONTEXT), SEVERAL)
@with_batch_options("text")
@with_loading_options
def run(
    *,
    batch: BatchRun,
    system: Annotated[Optional[str], typer.Option(help="The system prompt.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Do not apply the chat template.")] = False,
    at_once: Annotated[int, typer.Option("--batch", help="Prompts to run at once.")] = 8,
    tools: Annotated[Optional[Path], typer.Option(help="A JSON list of functions that the model may call.")] = None,
    template: Template = None,
    template_var: TemplateVars = None,
    prefill: Annotated[Optional[str], typer.Option(help="How the answer begins; the model continues it.")] = None,
    loading: LoadOptions,
    beams: Beams,
    options: GenerationOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import template_vars
    from triform.cli.batch.run import run_batch
    from triform.cli.inputs.tools_file import read_tools
    from triform.runtime.batch.writer_tasks import GenerateTask
    from triform.runtime.decoder.prompt_input import PromptOptions

    prompts = PromptOptions(
        system=system,
        raw=raw,
        tools=read_tools(tools),
        template=template,
        template_vars=template_vars(template_var),
        prefill=prefill,
    )
    return run_batch(batch, GenerateTask(options, beams, at_once, prompts), loading)
