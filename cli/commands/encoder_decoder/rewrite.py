"""``triform rewrite``."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    from triform.runtime.text.documents import Line

HELP = """Run a text-to-text model for what it was trained for: corrections, paraphrases, answers.

\b
  triform rewrite BUNDLE "she go to school yesterday" --prefix "grammar: "
  triform rewrite BUNDLE --file questions.txt > answers.txt
  triform rewrite BUNDLE --file notes.jsonl --field note --num-beams 4 --num-return-sequences 2 --json

Each line is a text, given to the model as it is. A text that is too long for the model is truncated, and a note says
how many were; --strict refuses it.
"""


@with_generation_options(ENCODER_DECODER, SEVERAL)
@with_text_inputs
@with_loading_options
def run(
    *,
    inputs: TextInputs,
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
    from triform.runtime.encoder_decoder.ask import Ask

    records = inputs.records(blank_lines="keep")
    model = load(inputs.folder, strict=strict, **loading)
    job = Job(model, options, chosen(task, prefix, Ask), beams, batch, "generated_text" if as_json else None)
    write_lines(job, records, _whole)
    say_cut(job, records, None)
    return 0


def _whole(text: str, number: int) -> list[Line]:
    from triform.runtime.text.documents import Line

    return [Line("", [text], "")] if text.strip() else [Line(text, [], "")]
