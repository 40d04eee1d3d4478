"""``triform translate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.common import Strict
from triform.cli.arguments.generation import ENCODER_DECODER, SEVERAL, with_generation_options
from triform.cli.arguments.loading import with_loading_options
from triform.cli.arguments.text_inputs import with_text_inputs
from triform.cli.commands.encoder_decoder.text_to_text import AsJson, Batch, Prefix, Task

if TYPE_CHECKING:
    from triform.cli.arguments.text_inputs import TextInputs
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions
    from triform.runtime.opening import LoadOptions

HELP = """Translate texts.

\b
  triform translate BUNDLE "The house is small."
  triform translate BUNDLE "The house is small." --source-lang en --target-lang fr
  triform translate BUNDLE --file book.txt --num-beams 4 > buch.txt
  triform translate BUNDLE --file news.jsonl --field body --json > translated.jsonl

Each line is translated on its own; blank lines are kept. A line that is too long for the model is split at the ends of
sentences into as few pieces as possible, whose translations are joined; a sentence that is too long is split between
words, with a note, or refused with --strict. Languages are named as in the model (de, deu_Latn, de_DE); the first part
of a name is enough. A model with tasks, such as T5, uses the task for these languages.
"""


@with_generation_options(ENCODER_DECODER, SEVERAL)
@with_text_inputs
@with_loading_options
def run(
    *,
    inputs: TextInputs,
    source_lang: Annotated[Optional[str], typer.Option(help="Language of the texts.")] = None,
    target_lang: Annotated[Optional[str], typer.Option(help="Language to translate into.")] = None,
    task: Task = None,
    prefix: Prefix = None,
    batch: Batch = 8,
    strict: Strict = False,
    as_json: AsJson = False,
    loading: LoadOptions,
    beams: Beams,
    options: GenerationOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.commands.encoder_decoder.text_to_text import Job, chosen, load, say_cut, write_lines
    from triform.runtime.encoder_decoder.ask import translation_ask
    from triform.runtime.encoder_decoder.splitting import splitter_for
    from triform.runtime.errors import InputError

    if (task or prefix) and (source_lang or target_lang):
        raise InputError("--task and --prefix say what to do instead of the languages; leave one of the two out")
    records = inputs.records(blank_lines="keep")
    model = load(inputs.folder, strict=strict, **loading)
    ask = chosen(task, prefix, lambda: translation_ask(model.info, source_lang, target_lang))
    job = Job(model, options, ask, beams, batch, "translation_text" if as_json else None)
    splitter = splitter_for(model, ask, strict=strict)
    write_lines(job, records, splitter.lines)
    say_cut(job, records, splitter)
    return 0
