"""``triform batch transcribe``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from triform.cli.arguments.batch import with_batch_options
from triform.cli.arguments.loading import with_loading_options

if TYPE_CHECKING:
    from triform.cli.batch.run import BatchRun
    from triform.runtime.opening import LoadOptions

HELP = """Transcribe any number of recordings.

\b
  triform batch transcribe BUNDLE --input recordings/ --output transcripts/
  triform batch transcribe BUNDLE --input calls.parquet --column file --language de --output transcripts/

The input is audio files, or tables whose column has the names of audio files; needs the extra audio. Adds the columns
"transcript", "segments" and "warnings" to the input's rows. docs/cluster.md says what the folder holds.
"""


@with_batch_options("audio")
@with_loading_options
def run(
    *,
    batch: BatchRun,
    language: Annotated[
        Optional[str], typer.Option(help="Language spoken, by the model's code, such as en; auto detects it.")
    ] = None,
    task: Annotated[
        Optional[Literal["transcribe", "translate"]], typer.Option(help="transcribe, or translate into English.")
    ] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps/--no-timestamps", help="Let the model predict the times of segments.")
    ] = True,
    word_timestamps: Annotated[bool, typer.Option("--word-timestamps", help="Compute the times of each word.")] = False,
    vad: Annotated[bool, typer.Option("--vad", help="Skip what is not speech.")] = False,
    at_once: Annotated[int, typer.Option("--batch", help="Windows to read at once.")] = 1,
    num_beams: Annotated[
        Optional[int], typer.Option(help="Beam search with this many beams; by default the model's own number.")
    ] = None,
    temperature: Annotated[
        Optional[list[float]], typer.Option(help="Repeatable, tried in turn; by default 0, 0.2, … 1.")
    ] = None,
    initial_prompt: Annotated[Optional[str], typer.Option(help="Text before the recording: style and names.")] = None,
    hotwords: Annotated[Optional[str], typer.Option(help="Words to expect in every window.")] = None,
    max_new_tokens: Annotated[Optional[int], typer.Option(help="Generate at most this many tokens per window.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Random seed; makes sampling repeatable.")] = None,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    from triform.cli.batch.run import run_batch
    from triform.runtime.batch.writer_tasks import TranscribeTask
    from triform.runtime.speech.options import TEMPERATURES, TranscribeOptions

    options = TranscribeOptions(
        language=language,
        task=task,
        timestamps=timestamps,
        word_timestamps=word_timestamps,
        vad=vad,
        batch=at_once,
        num_beams=num_beams,
        temperatures=tuple(temperature or TEMPERATURES),
        initial_prompt=initial_prompt,
        hotwords=hotwords,
        max_new_tokens=max_new_tokens,
        seed=seed,
    )
    return run_batch(batch, TranscribeTask(options), loading)
