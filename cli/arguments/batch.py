"""The options of every `triform batch` command, declared once and put into the commands' signatures.

A command takes them as one argument, `batch`::

    @with_batch_options("text")
    @with_loading_options
    def run(*, batch: BatchRun, loading: LoadOptions) -> int:
        return run_batch(batch, EmbedTask(), loading)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from triform.cli.arguments.common import Bundle
from triform.cli.arguments.replacing import replace_parameters

_Inputs = Annotated[
    list[str],
    typer.Option("--input", help="A file, a folder or a quoted pattern such as 'data/*.parquet'; repeatable."),
]
_Column = Annotated[str, typer.Option(help="The column, or the field of JSON objects, to read.")]
_Output = Annotated[Path, typer.Option(help="The folder to write; the same command continues an unfinished one.")]
_BlockRows = Annotated[int | None, typer.Option(help="Rows of a file in --output, which a killed run loses at most.")]
_Cluster = Annotated[
    str | None, typer.Option(help="A Ray cluster: its address, auto for the one that runs here, local for a new one.")
]
_Workers = Annotated[int | None, typer.Option(help="With --cluster: models at once; by default as many as fit.")]


def with_batch_options(column: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Replace a command's parameter `batch` by the arguments and options of `BatchRun`.

    Args:
        column: the default of --column.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        @wraps(command)
        def run(
            *,
            bundle: str | None,
            inputs: Sequence[str],
            column: str,
            output: Path,
            block_rows: int | None,
            cluster: str | None,
            workers: int | None,
            **parsed: Any,
        ) -> int:
            from triform.cli.arguments.bundle import at_least_one, bundle_and_prompt
            from triform.cli.batch.run import BatchRun
            from triform.runtime.errors import refuse_unused

            at_least_one("--block-rows", block_rows)
            at_least_one("--workers", workers)
            alone = "needs --cluster; on one machine --threads says how much is done at once"
            refuse_unused(alone, workers=workers is not None and cluster is None)
            folder = bundle_and_prompt(bundle, None)[0]
            return command(**parsed, batch=BatchRun(folder, inputs, column, output, block_rows, cluster, workers))

        replace_parameters(run, command, {"batch": _parameters(column)})
        return run

    return decorate


def _parameters(column: str) -> Sequence[inspect.Parameter]:
    missing = inspect.Parameter.empty
    options: tuple[tuple[str, Any, object], ...] = (
        ("bundle", Bundle, None),
        ("inputs", _Inputs, missing),
        ("column", _Column, column),
        ("output", _Output, missing),
        ("block_rows", _BlockRows, None),
        ("cluster", _Cluster, None),
        ("workers", _Workers, None),
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return [inspect.Parameter(name, kind, default=default, annotation=hint) for name, hint, default in options]
