"""Arguments and options that many commands share, declared once. Imported when commands run, not for types alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Bundle = Annotated[str | None, typer.Argument(help="The bundle's folder; TRIFORM_BUNDLE when absent.")]
Texts = Annotated[list[str] | None, typer.Argument(help="Texts; standard input's lines when absent.")]
TextFile = Annotated[Path | None, typer.Option(help="Read texts from a file: lines, or .jsonl.")]
Field = Annotated[str | None, typer.Option(help="Lines are JSON objects; the text is in this field.")]
SkipErrors = Annotated[bool, typer.Option("--skip-errors", help="Go on without lines that are damaged.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse texts that are too long, rather than cut.")]
Template = Annotated[str | None, typer.Option(help="Of several chat templates, the one of this name.")]
TemplateVars = Annotated[
    list[str] | None,
    typer.Option("--template-var", help="NAME=VALUE for the chat template, JSON or a text; repeatable."),
]
Provider = Annotated[str, typer.Option(help="cpu, cuda, …; auto is the CPU, for which bundles are made.")]
ProviderOptions = Annotated[list[str] | None, typer.Option(help="KEY=VALUE, repeatable.")]
Threads = Annotated[int | None, typer.Option(help="Physical cores when not given.")]
Verify = Annotated[
    Literal["always", "once", "never"],
    typer.Option(help="Hash the bundle's files: always; once, weights only until they change; never."),
]
