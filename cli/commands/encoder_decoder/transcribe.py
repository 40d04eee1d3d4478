"""``triform transcribe``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from triform.cli.arguments.common import Bundle
from triform.cli.arguments.loading import with_loading_options
from triform.cli.outputs.notes import say

if TYPE_CHECKING:
    from triform.cli.commands.encoder_decoder.transcript_files import Transcripts
    from triform.runtime.opening import LoadOptions
    from triform.runtime.speech.model import CtcModel, SpeechModel
    from triform.runtime.speech.options import TranscribeOptions
    from triform.runtime.speech.transcript import Segment

HELP = """Transcribe speech in recordings.

\b
  triform transcribe BUNDLE talk.mp3
  triform transcribe BUNDLE talk.mp3 --format srt --output talk.srt
  triform transcribe BUNDLE *.wav --format vtt --output subtitles/
  triform transcribe BUNDLE rede.flac --language de --task translate
  triform transcribe BUNDLE meeting.ogg --vad --batch 8 --json > meeting.json
  curl ... | triform transcribe BUNDLE -

Reads WAV, FLAC, OGG, MP3, AIFF and more; needs the extra audio. Without --language it is detected, unless the model is
for a single language: the first windows with speech vote, and --json says how sure that is.
--vad skips what is not speech. --batch reads several windows of 30 s at once: faster, but each without the text before
it, so add --vad, which cuts at pauses. --temperature may be repeated: the next one is tried if an answer repeats itself
(its compression ratio is above the threshold) or is unlikely (its mean log-probability is below the threshold).
A threshold of inf, -inf or, for --no-speech-threshold, 1 turns a check off.
Models for CTC (wav2vec2, Parakeet) give the times of words at no cost, take --num-beams and --batch, and refuse what
is about languages, prompts and sampling.
With --output each transcript gets its name when it is whole. After a run that was stopped, --resume leaves out the
recordings that have one, whichever model and options made it.
"""


@with_loading_options
def run(
    bundle: Bundle = None,
    audio: Annotated[
        Optional[list[str]], typer.Argument(help="Audio files; - is standard input.", metavar="AUDIO...")
    ] = None,
    output_format: Annotated[
        Optional[str],
        typer.Option("--format", help="text, json, srt or vtt; by default as --output is named, else text."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    output: Annotated[Optional[Path], typer.Option(help="Write to a file, or to a folder with one file each.")] = None,
    max_line_width: Annotated[Optional[int], typer.Option(help="Maximum characters in a line of subtitles.")] = None,
    language: Annotated[
        Optional[str], typer.Option(help="Language spoken, by the model's code, such as en; auto detects it.")
    ] = None,
    task: Annotated[Optional[str], typer.Option(help="transcribe, or translate into English.")] = None,
    timestamps: Annotated[
        bool, typer.Option("--timestamps/--no-timestamps", help="Let the model predict the times of segments.")
    ] = True,
    word_timestamps: Annotated[bool, typer.Option("--word-timestamps", help="Compute the times of each word.")] = False,
    vad: Annotated[bool, typer.Option("--vad", help="Skip what is not speech.")] = False,
    vad_threshold: Annotated[Optional[float], typer.Option(help="With --vad: from 0 to 1; 0.5 by default.")] = None,
    batch: Annotated[int, typer.Option(help="Windows to read at once.")] = 1,
    num_beams: Annotated[
        Optional[int], typer.Option(help="Beam search with this many beams; by default the model's own number.")
    ] = None,
    best_of: Annotated[int, typer.Option(help="Answers to sample at temperatures above 0.")] = 5,
    temperature: Annotated[
        Optional[list[float]], typer.Option(help="Repeatable, tried in turn; by default 0, 0.2, … 1.")
    ] = None,
    initial_prompt: Annotated[Optional[str], typer.Option(help="Text before the recording: style and names.")] = None,
    hotwords: Annotated[Optional[str], typer.Option(help="Words to expect in every window.")] = None,
    condition_on_previous_text: Annotated[
        Optional[bool],
        typer.Option(
            "--condition-on-previous-text/--no-condition-on-previous-text",
            help="Give the model the text before each window; on without --batch.",
        ),
    ] = None,
    compression_ratio_threshold: Annotated[float, typer.Option(help="Above it, an answer repeats itself.")] = 2.4,
    logprob_threshold: Annotated[float, typer.Option(help="Below it, an answer is unlikely.")] = -1.0,
    no_speech_threshold: Annotated[float, typer.Option(help="Above it, an unlikely answer is silence.")] = 0.6,
    max_new_tokens: Annotated[Optional[int], typer.Option(help="Generate at most this many tokens per window.")] = None,
    seed: Annotated[Optional[int], typer.Option(help="Random seed; makes sampling repeatable.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out recordings whose transcript is in --output and not older.")
    ] = False,
    skip_errors: Annotated[bool, typer.Option("--skip-errors", help="Skip files that cannot be used.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print timings to standard error.")] = False,
    *,
    loading: LoadOptions,
) -> int:
    """Parse, call, render."""
    arguments = dict(locals())
    from triform.cli.arguments.bundle import bundle_and_texts
    from triform.cli.commands.encoder_decoder.transcript_files import transcripts_of
    from triform.runtime.errors import InputError, refuse_unused
    from triform.runtime.opening import load_speech
    from triform.runtime.speech.ctc.recognizer import CtcRecognizer
    from triform.runtime.speech.ctc.transcription import check_ctc_options

    options = _options(arguments)
    folder, names = bundle_and_texts(bundle, audio)
    if not names:
        raise InputError("no recording: name audio files, or - for standard input")
    transcripts = transcripts_of(folder, names, output, output_format, as_json=as_json, width=max_line_width)
    refuse_unused(
        "changes only what --format json, srt and vtt write",
        word_timestamps=word_timestamps and transcripts.format == "text",
    )
    if resume and output is None:
        raise InputError("--resume continues a folder of transcripts: name it with --output")
    left = [(number, name) for number, name in enumerate(names) if not (resume and transcripts.has(number, name))]
    if len(left) < len(names):
        say(f"note: {len(names) - len(left)} of {len(names)} recordings have transcripts")
    if not left:
        return 0
    start = time.perf_counter()
    model = load_speech(folder, **loading)
    if isinstance(model, CtcRecognizer):
        check_ctc_options(options)
        shown = "shows only in JSON with this model (--json)"
        refuse_unused(shown, word_timestamps=word_timestamps and transcripts.format != "json")
    loaded = time.perf_counter()
    counted = _Counted()
    _each(left, lambda recording: _transcribe(model, recording, options, transcripts, counted), skip_errors=skip_errors)
    if stats:
        counted.show(loaded - start, time.perf_counter() - loaded)
    return 0


def _options(arguments: dict[str, Any]) -> TranscribeOptions:
    """The options for transcription among the command's arguments.

    Raises:
        InputError: a value is out of range, or two contradict each other.
    """
    import dataclasses

    from triform.runtime.errors import refuse_unused
    from triform.runtime.media.voice_activity import VoiceActivityOptions
    from triform.runtime.speech.options import TEMPERATURES, TranscribeOptions

    threshold = arguments["vad_threshold"]
    refuse_unused("needs --vad", vad_threshold=threshold is not None and not arguments["vad"])
    known = {field.name for field in dataclasses.fields(TranscribeOptions)}
    values = {name: value for name, value in arguments.items() if name in known}
    values["temperatures"] = tuple(arguments["temperature"] or TEMPERATURES)
    if threshold is not None and arguments["vad"]:
        values["voice_activity"] = VoiceActivityOptions(threshold=threshold)
    return TranscribeOptions(**values)


def _each(recordings: Sequence[tuple[int, str]], work: Callable[[tuple[int, str]], None], *, skip_errors: bool) -> None:
    """Transcribe recordings one by one, with or without those that cannot be read.

    Raises:
        InputError: a recording cannot be used; with `skip_errors`, none can.
    """
    from triform.runtime.errors import InputError

    skipped = 0
    for recording in recordings:
        try:
            work(recording)
        except InputError as error:
            if not skip_errors:
                raise
            say(f"note: skipped: {error}")
            skipped += 1
    if skipped == len(recordings):
        raise InputError(f"none of the {skipped} recordings can be used")


def _transcribe(
    model: SpeechModel | CtcModel,
    recording: tuple[int, str],
    options: TranscribeOptions,
    transcripts: Transcripts,
    counted: _Counted,
) -> None:
    from triform.cli.outputs.progress import seconds_bar
    from triform.runtime.media.audio import open_audio
    from triform.runtime.speech.transcription import transcribe

    number, name = recording
    with open_audio(name, _warn) as audio:
        with seconds_bar(audio.duration, results_to=transcripts.path(number)) as progress:

            def report(seconds: float) -> None:
                counted.seconds = max(counted.seconds, counted.before + seconds)
                progress(seconds)

            before = counted.segments
            transcripts.write(number, name, counted.of(transcribe(model, audio, options, progress=report)))
        counted.before = counted.seconds
    if counted.segments == before:
        say(f"note: no speech in {name}")


class _Counted:
    """Counts segments, tokens and seconds for --stats."""

    def __init__(self) -> None:
        self.segments = 0
        self.tokens = 0
        self.seconds = 0.0
        # Seconds of the finished recordings.
        self.before = 0.0

    def of(self, segments: Iterable[Segment]) -> Iterator[Segment]:
        """The same segments, counted as they are read."""
        for segment in segments:
            self.segments += 1
            self.tokens += len(segment.tokens)
            yield segment

    def show(self, load: float, work: float) -> None:
        """Print the counts to standard error."""
        say(
            f"load {load:.2f} s, {self.seconds:.1f} s of audio in {work:.2f} s "
            f"({self.seconds / work:.1f} times as fast as it plays), {self.segments} segments, {self.tokens} tokens"
        )


def _warn(warning: str) -> None:
    say(f"note: {warning}")
