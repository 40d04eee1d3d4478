"""Arguments and options that many commands share, declared once; typer needs them at run time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from triform.cli.arguments.completion import complete_bundle

Bundle = Annotated[
    str | None,
    typer.Argument(autocompletion=complete_bundle, help="The bundle's folder; TRIFORM_BUNDLE by default."),
]
BundleFolder = Annotated[
    Path, typer.Argument(autocompletion=complete_bundle, envvar="TRIFORM_BUNDLE", help="The bundle's folder.")
]
Texts = Annotated[list[str] | None, typer.Argument(help="Texts; the lines of standard input by default.")]
TextFile = Annotated[Path | None, typer.Option(help="Read texts from a file: lines, .jsonl, .json, .csv or .tsv.")]
Field = Annotated[str | None, typer.Option(help="The field of a JSON object, or the column, that holds the text.")]
SkipErrors = Annotated[bool, typer.Option("--skip-errors", help="Skip lines that cannot be used.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse texts that are too long instead of truncating them.")]
Template = Annotated[str | None, typer.Option(help="The chat template to use, where the model has several.")]
TemplateVars = Annotated[
    list[str] | None,
    typer.Option("--template-var", help="NAME=VALUE: a variable of the chat template; repeatable."),
]
Verify = Annotated[
    Literal["always", "once", "never"],
    typer.Option(help="When to check file hashes; once: weights only when they changed."),
]
