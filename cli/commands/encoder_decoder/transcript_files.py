"""Writes transcripts to standard output, a file, or a folder of files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from triform.cli.outputs.part_file import check_not_read
from triform.runtime.errors import InputError, refuse_unused
from triform.runtime.files import whole_file
from triform.runtime.media.audio import STDIN
from triform.runtime.speech.subtitles import WRITERS
from triform.runtime.speech.transcript import Segment

# The file name suffix of each format.
_SUFFIXES = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}


@dataclass(frozen=True)
class Transcripts:
    """Writes transcripts.

    Attributes:
        format: one of `WRITERS`.
        paths: a file for each recording; empty for standard output.
        headed: whether to print the recording's name before each transcript.
        width: characters in a line of subtitles; None for one line.
    """

    format: str
    paths: tuple[Path, ...]
    headed: bool
    width: int | None

    def write(self, number: int, name: str, segments: Iterable[Segment]) -> None:
        """Write one transcript as its segments come.

        Args:
            number: of the recording, from 0.
            name: of the recording.
            segments: of the recording.

        Raises:
            InputError: the file cannot be written.
        """
        pieces = self._writer(name)(segments)
        if self.paths:
            with whole_file(self.paths[number]) as file:
                file.writelines(piece.encode() for piece in pieces)
            return
        if self.headed:
            print(f"==> {name} <==", flush=True)
        for piece in pieces:
            sys.stdout.write(piece)
            sys.stdout.flush()

    def path(self, number: int) -> Path | None:
        """The file for a recording; None for standard output."""
        return self.paths[number] if self.paths else None

    def has(self, number: int, name: str) -> bool:
        """Whether a recording has a transcript that is not older than it. A file takes its name when it is whole."""
        path, recording = self.path(number), Path(name)
        if path is None or name == STDIN or not (path.is_file() and recording.is_file()):
            return False
        return path.stat().st_mtime_ns >= recording.stat().st_mtime_ns

    def _writer(self, name: str) -> Callable[[Iterable[Segment]], Iterable[str]]:
        writer = WRITERS[self.format]
        if self.format == "json":
            return lambda segments: writer(segments, name)
        if self.format == "text":
            return writer
        return lambda segments: writer(segments, self.width)


def transcripts_of(
    bundle: Path,
    names: Sequence[str],
    output: Path | None,
    output_format: str | None,
    *,
    as_json: bool,
    width: int | None,
) -> Transcripts:
    """Decide the format of transcripts and where they go.

    Args:
        bundle: the model's folder.
        names: of the recordings.
        output: a file, or a folder for a file each; standard output when None.
        output_format: the format; if None, by the name of `output`, else text.
        as_json: the format is JSON.
        width: characters in a line of subtitles.

    Raises:
        InputError: the format is unknown, does not fit, two recordings would go to the same file, or a recording or a
            file of the bundle would be overwritten.
    """
    kind = _format(output_format, output, as_json)
    if kind not in ("srt", "vtt"):
        refuse_unused("is for subtitles, which --format srt and vtt write", max_line_width=width is not None)
        width = None
    if width is not None and width < 1:
        raise InputError(f"--max-line-width must be at least 1, not {width}")
    several = len(names) > 1
    if output is None:
        if several and kind in ("srt", "vtt"):
            raise InputError(f"{kind} of several recordings needs --output FOLDER, for a file each")
        return Transcripts(kind, (), several and kind == "text", width)
    recordings = [Path(name) for name in names if name != STDIN]
    # Before a folder is made.
    check_not_read(output, recordings, bundle)
    paths = _paths(names, output, kind)
    for path in paths:
        check_not_read(path, recordings, bundle)
    return Transcripts(kind, paths, False, width)


def _format(output_format: str | None, output: Path | None, as_json: bool) -> str:
    if output_format is not None and output_format not in WRITERS:
        raise InputError(f"--format must be {', '.join(WRITERS)}, not {output_format}")
    if as_json and output_format not in (None, "json"):
        raise InputError(f"give --json or --format {output_format}, not both")
    if as_json:
        return "json"
    suffix = output.suffix.lower() if output is not None else ""
    by_name = next((kind for kind, known in _SUFFIXES.items() if known == suffix), "text")
    return by_name if output_format is None else output_format


def _paths(names: Sequence[str], output: Path, kind: str) -> tuple[Path, ...]:
    if len(names) == 1 and not output.is_dir():
        return (output,)
    if output.exists() and not output.is_dir():
        raise InputError(f"--output {output} is a file, but there are {len(names)} recordings: name a folder")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--output {output} cannot be made: {error.strerror}") from None
    stems = ["stdin" if name == STDIN else Path(name).stem for name in names]
    for index, stem in enumerate(stems):
        if stem in stems[:index]:
            first, second = names[stems.index(stem)], names[index]
            raise InputError(f"{first} and {second} would both go to {output / stem}{_SUFFIXES[kind]}: rename one")
    return tuple(output / f"{stem}{_SUFFIXES[kind]}" for stem in stems)
