"""``triform export``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.commands.bundle.export_extra import check_installed, compiled_elsewhere, kept_for_good
from triform.cli.outputs.export_progress import export_progress
from triform.cli.outputs.notes import say
from triform.cli.outputs.spelling import spelled

if TYPE_CHECKING:
    from triform.export.options import ExportOptions
    from triform.export.report import Report
    from triform.runtime.graphs.preparation import Preparation

HELP = """Export a checkpoint to a bundle, verified against PyTorch.

\b
  triform export ./my-model bundle                       a transformers or sentence-transformers folder
  triform export ./my-adapter bundle                     a LoRA adapter, merged into the base that it names
  triform export model.Q4_1.gguf bundle                  a GGUF file (or org/name/FILE of the hub), with its own blocks
  triform export org/name bundle --revision v1.0         a hub id; without a network, from the hub's cache
  triform export ./my-model bundle --dry-run             print what would be done, for which task, and why

The bundle is written whole or not at all.
"""
# How many parts that are left out are named.
_PARTS_NAMED = 5


@compiled_elsewhere()
def run(
    source: Annotated[str, typer.Argument(help="A model folder, a GGUF file or a hub id.")],
    bundle: Annotated[Path, typer.Argument(help="The folder to make.")],
    quantize: Annotated[
        str,
        typer.Option(
            help="auto, none, int8, int4 or keep. auto is keep for decoders whose weights are quantized in blocks, "
            "int4 for other decoders with a hidden size above 1024, and int8 for all others."
        ),
    ] = "auto",
    task: Annotated[
        Optional[str], typer.Option(help="A task by its name on the hub; by default what the model was trained for.")
    ] = None,
    hidden_states: Annotated[
        bool,
        typer.Option(
            "--hidden-states", help="Keep the hidden states: all layers of an encoder, the last of a decoder."
        ),
    ] = False,
    calibrate: Annotated[
        Optional[list[str]],
        typer.Option(help="A text in UTF-8, or a recording for a speech model, to calibrate on; may be repeated."),
    ] = None,
    word_timestamps: Annotated[
        bool, typer.Option("--word-timestamps", help="Let a speech model compute word timestamps.")
    ] = False,
    block_size: Annotated[Optional[int], typer.Option(help="Weights that share a scale: 16 to 256.")] = None,
    accuracy_level: Annotated[int, typer.Option(help="Precision of activations: 4 is int8, 1 is float32.")] = 4,
    target_size: Annotated[
        Optional[str],
        typer.Option(help="Most bytes of the bundle, such as 90MB: bits go where they help most."),
    ] = None,
    target_bits: Annotated[
        Optional[float], typer.Option(help="Most bits per weight, such as 4.8, scales included.")
    ] = None,
    max_loss: Annotated[
        Optional[str],
        typer.Option(
            help="Most that perplexity may grow, an encoder's cosine fall, or words of speech change, as 1%; measured."
        ),
    ] = None,
    context_length: Annotated[Optional[int], typer.Option(help="In tokens; by default the model's own limit.")] = None,
    target: Annotated[
        str, typer.Option(help="What the bundle is for: cpu, gpu (NVIDIA, 16-bit floats), or both as cpu,gpu.")
    ] = "cpu",
    dtype: Annotated[
        Optional[str], typer.Option(help="What a GPU computes with: float16, the default, or bfloat16.")
    ] = None,
    plot: Annotated[
        Optional[Path], typer.Option(help="With a goal: draw the sizes and losses that it chose from to this PNG file.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Do not calibrate a decoder, and verify it on fewer tokens.")
    ] = False,
    fast_prompts: Annotated[
        bool,
        typer.Option(
            "--fast-prompts",
            help="Also store a decoder's matrices in 8 bits for long prompts, to read them about twice as fast.",
        ),
    ] = False,
    for_this_machine: Annotated[
        bool,
        typer.Option(
            "--for-this-machine",
            help="Also prepare the bundle for this machine, for a sooner start: see triform prepare --help.",
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing bundle.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run code that comes with the checkpoint.")
    ] = False,
    revision: Annotated[Optional[str], typer.Option(help="Branch, tag or commit of a hub id.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the report as JSON, and events on standard error.")
    ] = False,
) -> int:
    """Parse, call, render."""
    from triform.cli.outputs.tables import megabytes, rows

    check_installed()
    _say_newer()
    from triform.export.frontier_plot import check_plot, plot_frontier
    from triform.export.options import ExportOptions, bytes_of, share_of
    from triform.export.paths import check_source, check_target

    options = ExportOptions(
        quantize=quantize,
        block_size=block_size,
        accuracy_level=accuracy_level,
        context_length=context_length,
        force=force,
        trust_remote_code=trust_remote_code,
        revision=revision,
        task=task,
        hidden_states=hidden_states,
        calibrate=tuple(calibrate or ()),
        word_timestamps=word_timestamps,
        target_size=None if target_size is None else bytes_of(target_size),
        target_bits=target_bits,
        max_loss=None if max_loss is None else share_of(max_loss),
        target=target,
        dtype=dtype,
        fast=fast,
        fast_prompts=fast_prompts,
    )
    # Before the imports below, which take seconds.
    check_source(source)
    if not dry_run:
        check_target(bundle, force)
    if for_this_machine:
        _check_for_this_machine(options)
    if plot is not None:
        check_plot(plot, bundle, options)
    with kept_for_good():
        from triform.export.pipeline import export, plan

    if dry_run:
        planned = plan(source, options)
        print(json.dumps(dict(planned)) if as_json else spelled(rows(planned)))
        return 0
    with export_progress(as_json=as_json) as progress:
        report = export(source, bundle, options, progress)
    if plot is not None:
        plot_frontier(report, plot)
    prepared = _prepared(bundle) if for_this_machine else None
    if as_json:
        print(json.dumps(report.to_json() | ({} if prepared is None else {"prepared_bytes": prepared.size})))
        return 0
    print(spelled(_render(report)))
    if prepared is not None:
        print(f"prepared for this machine, {megabytes(prepared.size)}: triform prepare --remove takes it away")
    return 0


def _check_for_this_machine(options: ExportOptions) -> None:
    from triform.runtime.errors import InputError
    from triform.runtime.machine.prepared_graphs import check_preparable

    if options.target == "gpu":
        raise InputError("--for-this-machine lays out weights for a processor; leave it out with --target gpu")
    check_preparable()


def _prepared(bundle: Path) -> Preparation:
    from triform.runtime.graphs.preparation import prepare

    return prepare(bundle)


def _say_newer() -> None:
    """Note packages that are newer than the tested versions, before anything can fail for that reason."""
    from triform.export.tested_versions import newer_than_tested

    newer = newer_than_tested()
    if newer:
        named = (f"{package} {version.installed} (tested with {version.tested})" for package, version in newer.items())
        say(f"note: newer than the versions that this release was tested with: {', '.join(named)}")


def _render(report: Report) -> str:
    from triform.cli.outputs.tables import encoder_parity_rows, end_tokens, megabytes, parity_rows, rows
    from triform.runtime.bundle.export_record import Parity

    seconds = [(name, f"{value:.1f} s") for name, value in report.seconds.items()]
    total = ("total", f"{sum(report.seconds.values()):.1f} s")
    purpose = [
        ("task", f"{report.task}, by {report.decided_by}"),
        ("quantization", f"{report.scheme}, by {report.scheme_decided_by}"),
    ]
    if report.left_out:
        purpose.append(("left out", _left_out(report.parts_left_out)))
    if report.end_tokens:
        purpose.append(("answers end at", end_tokens(report.end_tokens)))
    purpose += [("note", note) for note in report.notes]
    sizes = [
        ("weights before", megabytes(report.size_before)),
        ("bundle", f"{megabytes(report.size_after)}  {report.bundle}"),
    ]
    parity = report.parity
    parity_lines = parity_rows(parity) if isinstance(parity, Parity) else encoder_parity_rows(parity)
    return rows([*seconds, total, *purpose, *sizes, *parity_lines])


def _left_out(parts: Mapping[str, int]) -> str:
    """The parts of a checkpoint that a bundle does not have, in words."""
    named = [f"{part} ({count} weight{'' if count == 1 else 's'})" for part, count in parts.items()]
    more = f" and {len(named) - _PARTS_NAMED} more" if len(named) > _PARTS_NAMED else ""
    return f"what this task does not need: {', '.join(named[:_PARTS_NAMED])}{more}"
