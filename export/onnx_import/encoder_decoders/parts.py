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


def find_parts(folder: Path, file: str | None) -> Parts | None:
    """The graphs of a folder; None if it is not one of an encoder-decoder.

    Args:
        folder: of the model.
        file: the path in it of any one of the graphs to import, which those of the same kind go with; if None the ones
            that are not quantized, or the only ones.

    Raises:
        ExportError: one of the graphs is missing.
        InputError: there are several kinds, of which `file` has to name one.
    """
    named = None if file is None else _NAME.fullmatch((folder / file).name)
    if file is not None and (named is None or not (folder / file).is_file()):
        return None
    places = [(folder / file).parent] if file is not None else [folder / name for name in _FOLDERS]
    for place in places:
        kinds = _kinds(place)
        if kinds:
            kind = named.group(2) if named is not None else _only(folder, place, kinds)
            apart = named is not None and named.group(1) in (_FIRST, _PAST)
            return _parts(folder, place, kind, apart=apart)
    return None


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


def _parts(folder: Path, place: Path, kind: str, *, apart: bool) -> Parts:
    encoder, first, past, merged = (place / f"{name}{kind}.onnx" for name in (_ENCODER, _FIRST, _PAST, _MERGED))
    if merged.is_file() and not apart:
        first = past = merged
    missing = [path for path in (encoder, first, past) if not path.is_file()]
    if missing:
        others = "" if apart or missing[0] == encoder else f", or {merged.name} in place of both decoders"
        raise ExportError(
            f"{place} lacks {missing[0].name}{others}: an encoder-decoder needs {encoder.name}, and graphs that begin "
            "an answer and continue it"
        )
    return Parts(folder, encoder, first, past)
