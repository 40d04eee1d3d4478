"""Messages name options and methods as Python does, and the command line prints flags and commands."""

from __future__ import annotations

import dataclasses

import pytest
import typer

import triform
from tests.helpers.commands import invoke, one_line
from triform.cli import main
from triform.cli.outputs import spelling
from triform.export.options import ExportOptions
from triform.runtime.bundle import tasks


def command(name):
    app = typer.main.get_command(main.app)
    return app.get_command(typer.Context(app), name)


@pytest.mark.parametrize(
    ("name", "message", "printed"),
    [
        ("answer", "`top_k` must be 1; or leave out `no_answer`", "--top-k must be 1; or leave out --no-answer"),
        ("answer", "`threads` and `provider_options`", "--threads and --provider-option"),
        ("transcribe", "`timestamps`", "--timestamps"),
        ("generate", "shorten it, or see `on_overflow`", "shorten it, or see --on-overflow"),
        ("bench", "shorten it, or see `on_overflow`", "shorten it"),
        ("transcribe", "use `Encoder.classify_images`", "use `triform classify-image`"),
        ("vectors", "export with `ExportOptions.hidden_states`", "export with --hidden-states"),
        # What is no option of the command, and no name at all.
        ("vectors", "`top_k`, `triform verify` and `top k`", "`top_k`, `triform verify` and `top k`"),
    ],
)  # fmt: skip
def test_spelling(name, message, printed):
    command(name)
    assert spelling.spelled(message) == printed


def test_flags_are_those_of_the_command_that_runs():
    command("vectors")
    assert spelling.spelled("`layer`") == "--layer"
    command("tag")
    assert spelling.spelled("`layer`") == "`layer`"


def test_every_export_option_is_a_flag():
    flags = {flag for parameter in command("export").params for flag in parameter.opts}
    for item in dataclasses.fields(ExportOptions):
        assert spelling.spelled(f"`ExportOptions.{item.name}`") in flags


def test_every_task_has_a_method_and_a_command():
    for task in tasks.COMMANDS:
        hint = tasks.method_hint(task, "")
        assert spelling.spelled(hint) == f"use `triform {tasks.COMMANDS[task]}`"


def test_errors_and_notes_are_spelled(capsys, sentence_bundle, float_bundle):
    code, _, err = invoke(capsys, "embed", sentence_bundle, "a", "--dimensions", 49)
    assert (code, one_line(err)) == (2, "error: --dimensions must be between 1 and the model's 48, not 49\n")
    code, _, err = invoke(capsys, "tag", float_bundle, "a")
    assert code == 1
    assert one_line(err).endswith("use `triform generate`\n")
    with pytest.raises(triform.UnsupportedError, match=r"use `Decoder\.generate`$"):
        triform.load_encoder(float_bundle)
