"""The bundle and the texts of a command, declared once for the commands that read texts.

A command takes them as one argument, `inputs`::

    @with_text_inputs
    def run(*, inputs: TextInputs, top_k: int = 5) -> int:
        model, records = load_encoder(inputs.folder), inputs.records()
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from triform.cli.arguments.common import Bundle, Field, SkipErrors, TextFile, Texts
from triform.cli.arguments.replacing import replace_parameters

if TYPE_CHECKING:
    from triform.cli.inputs.records import Records


@dataclass(frozen=True)
class TextInputs:
    """What a command reads.

    Attributes:
        folder: the bundle's folder.
        texts: the texts among the arguments; a file or standard input is read if there are none.
        file: the file of --file.
        field: the field of a JSON object, or the column of a table, that holds the text.
        skip_errors: whether to skip records that cannot be used.
    """

    folder: Path
    texts: Sequence[str]
    file: Path | None
    field: str | None
    skip_errors: bool

    def records(self, blank_lines: Literal["skip", "keep"] = "skip", *, pages: bool = False) -> Records:
        """The texts as records.

        Args:
            blank_lines: see `Records`.
            pages: see `Layout`.

        Raises:
            InputError: see `Records`.
        """
        from triform.cli.inputs.records import Records

        given = self.texts, self.file, self.field, self.skip_errors
        return Records(*given, blank_lines=blank_lines, pages=pages)


def with_text_inputs(command: Callable[..., int]) -> Callable[..., int]:
    """Replace a command's parameter `inputs` by the arguments and options of `TextInputs`."""

    @wraps(command)
    def run(
        *,
        bundle: str | None,
        texts: Sequence[str] | None,
        file: Path | None,
        field: str | None,
        skip_errors: bool,
        **parsed: Any,
    ) -> int:
        from triform.cli.arguments.bundle import bundle_and_texts

        inputs = TextInputs(*bundle_and_texts(bundle, texts), file, field, skip_errors)
        return command(**parsed, inputs=inputs)

    replace_parameters(run, command, {"inputs": _PARAMETERS})
    return run


def _parameter(name: str, kind: Any, default: object = None) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


_PARAMETERS = (
    _parameter("bundle", Bundle),
    _parameter("texts", Texts),
    _parameter("file", TextFile),
    _parameter("field", Field),
    _parameter("skip_errors", SkipErrors, False),
)
