"""Commands from the outside."""

from __future__ import annotations

from triform.cli.main import run


def invoke(capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    code = run([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def one_line(err):
    """An error message, which must be one line."""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err
