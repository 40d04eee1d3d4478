"""``triform summarize``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triform.cli.arguments.common import Strict
from triform.cli.arguments.generation import ENCODER_DECODER, SEVERAL, with_generation_options
from triform.cli.arguments.loading import with_loading_options
from triform.cli.arguments.text_inputs import with_text_inputs
from triform.cli.commands.encoder_decoder.text_to_text import AsJson, Batch, Prefix, Task

if TYPE_CHECKING:
    from triform.cli.arguments.text_inputs import TextInputs
    from triform.cli.commands.encoder_decoder.text_to_text import Job
    from triform.cli.inputs.records import Record, Records
    from triform.runtime.generation.options.beams import Beams
    from triform.runtime.generation.options.generation import GenerationOptions
    from triform.runtime.opening import LoadOptions
    from triform.runtime.text.documents import Splitter

HELP = """Summarize texts.

\b
  triform summarize BUNDLE --file article.txt
  cat article.txt | triform summarize BUNDLE --max-new-tokens 80
  triform summarize BUNDLE --file articles.jsonl --field body --num-beams 4 --json > summaries.jsonl
  triform summarize BUNDLE --file abstracts.txt --lines

A file, or standard input, is one text, unless it is JSONL or --lines is given.
A text that is too long for the model is split into windows of whole sentences that overlap by at most a sixth. Each
window is summarized. If the summaries together are longer than a summary may be (--max-new-tokens, or the model's own
limit), they are summarized again, in windows if need be, until they fit or get no shorter; otherwise they are printed
one after another. A sentence that is too long is split between words, with a note, or refused with --strict.
"""

# Texts whose windows are run together.
_TEXTS = 64


@with_generation_options(ENCODER_DECODER, SEVERAL)
@with_text_inputs
@with_loading_options
def run(
    *,
    inputs: TextInputs,
    lines: Annotated[bool, typer.Option("--lines", help="Each line of the file is one text.")] = False,
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
    from triform.cli.commands.encoder_decoder.text_to_text import Job, chosen, load, say_cut
    from triform.runtime.encoder_decoder.ask import summary_ask
    from triform.runtime.encoder_decoder.splitting import splitter_for
    from triform.runtime.errors import refuse_unused

    records = inputs.records()
    refuse_unused("is for a file of plain text", lines=lines and (bool(inputs.texts) or records.is_json))
    model = load(inputs.folder, strict=strict, **loading)
    ask = chosen(task, prefix, lambda: summary_ask(model.info))
    job = Job(model, options, ask, beams, batch, "summary_text" if as_json else None)
    splitter = splitter_for(model, ask, strict=strict)
    whole = not (inputs.texts or lines or records.is_json)
    _write(job, _whole(inputs.file) if whole else records, splitter, streams=whole or len(inputs.texts) == 1)
    say_cut(job, records, splitter)
    return 0


def _whole(file: Path | None) -> list[Record]:
    from triform.cli.inputs.records import Record
    from triform.cli.inputs.whole_text import whole_text

    return [Record(1, whole_text("text", None, file))]


def _write(job: Job, records: Records | list[Record], splitter: Splitter, *, streams: bool) -> None:
    from triform.cli.commands.encoder_decoder.text_to_text import show, stream
    from triform.cli.inputs.records import Records
    from triform.cli.outputs.progress import with_progress
    from triform.runtime.errors import InputError
    from triform.runtime.text.documents import Line, summaries

    source = iter(with_progress(records, results_to=None) if isinstance(records, Records) else records)
    most = job.longest_answer
    while chunk := list(islice(source, _TEXTS)):
        for record in chunk:
            if not record.text.strip():
                raise InputError(f"text {record.number} is empty")
        if streams and job.streams and len(splitter.windows(chunk[0].text)) == 1:
            stream(job, [Line("", [chunk[0].text.strip()], "")])
            continue
        results = summaries(
            [record.text for record in chunk], splitter, most, job.work, lambda answers: answers[0].text
        )
        for record, answers in zip(chunk, results, strict=True):
            show(job, record, [Line("", [""] * len(answers), "")], answers)
