"""Finds the graphs of an encoder-decoder in a folder that another tool made."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from triform.runtime.errors import ExportError, InputError, option

# Where tools put graphs, and what they call them. What follows a name tells how weights are stored, such as _q4.
_FOLDERS = ("", "onnx")
_ENCODER, _FIRST, _PAST, _MERGED = "encoder_model", "decoder_model", "decoder_with_past_model", "decoder_model_merged"
_NAME = re.compile(rf"({_ENCODER}|{_MERGED}|{_FIRST}|{_PAST})(.*)\.onnx")


@dataclass(frozen=True)
class Parts:
    """The graphs of an encoder-decoder.

    Attributes:
        folder: that the user named.
        encoder: path of the graph that reads a source.
        first: of the one that begins an answer.
        past: of the one that continues it; the same file where both are branches of one graph.
    """

    folder: Path
    encoder: Path
    first: Path
    past: Path

    @property
    def paths(self) -> tuple[Path, ...]:
        """Each file once."""
        return tuple(dict.fromkeys((self.encoder, self.first, self.past)))


def find_parts(folder: Path, file: str | None, encoder_file: str | None = None) -> Parts | None:
    """The graphs of a folder; None if it is not one of an encoder-decoder.

    Args:
        folder: of the model.
        file: the path in it of any one of the graphs to import, which those of the same kind go with; if None the ones
            that are not quantized, or the only ones.
        encoder_file: the path in it of the encoder, if that is of another kind.

    Raises:
        ExportError: one of the graphs is missing.
        InputError: there are several kinds, of which `file` has to name one; or `encoder_file` names no encoder.
    """
    encoder = None if encoder_file is None else _encoder(folder, encoder_file)
    named = None if file is None else _NAME.fullmatch((folder / file).name)
    if file is None or (named is not None and (folder / file).is_file()):
        places = [(folder / file).parent] if file is not None else [folder / name for name in _FOLDERS]
        for place in places:
            kinds = _kinds(place)
            if kinds or (named is not None and encoder is not None):
                kind = named.group(2) if named is not None else _only(folder, place, kinds)
                apart = named is not None and named.group(1) in (_FIRST, _PAST)
                return _parts(folder, place, kind, encoder, apart=apart)
    if encoder is not None:
        raise InputError(f"{option('encoder_file')}: {file or folder} is no decoder of an encoder-decoder")
    return None


def _encoder(folder: Path, file: str) -> Path:
    name = _NAME.fullmatch((folder / file).name)
    if name is None or name.group(1) != _ENCODER or not (folder / file).is_file():
        raise InputError(f"{option('encoder_file')}: {folder} has no encoder {file}, such as onnx/{_ENCODER}.onnx")
    return folder / file


def _kinds(place: Path) -> list[str]:
    """What follows the name of each encoder."""
    found = [_NAME.fullmatch(path.name) for path in sorted(place.glob("*.onnx"))]
    return [name.group(2) for name in found if name is not None and name.group(1) == _ENCODER]


def _only(folder: Path, place: Path, kinds: list[str]) -> str:
    if "" in kinds:
        return ""
    if len(kinds) > 1:
        names = ", ".join((place / f"{_ENCODER}{kind}.onnx").relative_to(folder).as_posix() for kind in kinds)
        raise InputError(f"{folder} has several encoders: choose one, with its decoder, by {option('file')}: {names}")
    return kinds[0]


def _parts(folder: Path, place: Path, kind: str, encoder: Path | None, *, apart: bool) -> Parts:
    encoder = encoder or place / f"{_ENCODER}{kind}.onnx"
    first, past, merged = (place / f"{name}{kind}.onnx" for name in (_FIRST, _PAST, _MERGED))
    if merged.is_file() and not apart:
        first = past = merged
    missing = [path for path in (encoder, first, past) if not path.is_file()]
    if missing:
        others = "" if apart or missing[0] == encoder else f", or {merged.name} in place of both decoders"
        raise ExportError(
            f"{place} lacks {missing[0].name}{others}: an encoder-decoder needs {encoder.name}, and graphs that begin "
            f"an answer and continue it{_of_other_kinds(place, kind)}"
        )
    return Parts(folder, encoder, first, past)


def _of_other_kinds(place: Path, kind: str) -> str:
    """What to do with the graphs of a folder that end otherwise; nothing if there are none."""
    names = [path.name for path in sorted(place.glob("*.onnx"))]
    found = [match for match in map(_NAME.fullmatch, names) if match is not None and match.group(2) != kind]
    if not found:
        return ""
    listed = ", ".join(match.group() for match in found)
    return f"; of other kinds it has {listed}: {option('file')} names a decoder, {option('encoder_file')} its encoder"
