"""The command line: one typer app, commands loaded only when used, every failure one line."""

from __future__ import annotations

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from triform.cli.arguments.optional_values import with_values
from triform.cli.command_table import BATCH_MODULES, COMMAND_MODULES, CONFIGURABLE, load_command
from triform.cli.configuration.command import configure
from triform.cli.configuration.origins import use_origins_of, with_origins
from triform.cli.outputs.pipes import ReaderGone
from triform.cli.outputs.spelling import spelled, use_flags_of
from triform.cli.outputs.terminal import guard_terminals
from triform.cli.signals import asked_to_end, end_at_once, end_in_order, interrupt

# A full disk, a file or quota at its limit, and a failing device.
_CANNOT_WRITE = {errno.ENOSPC, errno.EFBIG, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}

# The most characters shown of an unexpected error.
_LONGEST = 500

_HELP = """Run trained transformers offline, from small self-contained bundles.

\b
Make a bundle, once, where PyTorch is installed:
  triform export ./SmolLM2-135M-Instruct smollm2-int4 --quantize int4
Use it, anywhere:
  triform generate smollm2-int4 "Why is the sky blue?"
  echo "Summarize: ..." | triform generate smollm2-int4
Inspect it:
  triform inspect smollm2-int4
"""


_BATCH_HELP = """Run a model over files of any size: Parquet, JSONL, CSV, plain lines, or recordings.

\b
  triform batch embed BUNDLE --input 'data/*.parquet' --column text --output out/

The folder gets a file for each block of rows. A run that was stopped goes on where it was when the command is given
again. Rows that cannot be computed are in errors.parquet, with the reason.
"""


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Turn a broken pipe into ReaderGone before typer sees it: typer would end the process, with an exit code of 1."""
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None


class _LazyGroup(TyperGroup):
    """A command group that imports a command's module when the command is used."""

    commands_of = COMMAND_MODULES

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands_of)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands_of:
            return None
        if self.commands_of is COMMAND_MODULES and cmd_name == "batch":
            return _batch_group()
        table = (cmd_name,) if self.commands_of is COMMAND_MODULES else ("batch", cmd_name)
        command = load_command(table)
        use_flags_of(command)
        # While a shell completes a line, nothing may be printed.
        if table in CONFIGURABLE and not ctx.resilient_parsing:
            configure(command, table, CONFIGURABLE)
        return command

    def make_context(self, *arguments: Any, **extra: Any) -> Any:
        with _reader_may_leave():
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: Any) -> Any:
        with _reader_may_leave():
            result = super().invoke(ctx)
            # A failure while the interpreter exits could no longer be handled.
            sys.stdout.flush()
            return result

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help_line) for name, (_, help_line) in self.commands_of.items()])


class _BatchGroup(_LazyGroup):
    """The commands of `triform batch`."""

    commands_of = BATCH_MODULES


def _batch_group() -> Any:
    group = typer.Typer(
        cls=_BatchGroup, name="batch", help=_BATCH_HELP, no_args_is_help=True, rich_markup_mode=None,
        add_completion=False,
    )  # fmt: skip
    # A group needs a callback to be one.
    group.callback()(lambda: None)
    return typer.main.get_group(group)


app = typer.Typer(
    cls=_LazyGroup,
    help=_HELP,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        from triform import __version__

        typer.echo(f"triform {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """Run the command line and exit."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # A stream that the caller closed (`>&-`) is None; an empty one behaves as expected.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            _set_encoding(stream)
    guard_terminals()
    # Of a library, about numbers that are checked where they matter.
    warnings.filterwarnings("ignore", category=RuntimeWarning)
    _note_warnings()
    end_in_order()
    # numpy's linear algebra starts a thread per core when imported, which slow down the loading of a model.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    try:
        interrupt()
        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        # Before or after what `run` guards.
        code = 130
    end_at_once()
    _leave(code)


def _note_warnings() -> None:
    """Print what the runtime warns of as a note of one line; others' warnings as Python does."""
    show = warnings.showwarning

    def note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        from triform.cli.outputs.notes import say
        from triform.runtime.errors import ProviderWarning

        if issubclass(category, ProviderWarning):
            say(f"note: {spelled(str(message))}")
        else:
            show(message, category, filename, lineno, file, line)

    warnings.showwarning = note


def _set_encoding(stream: TextIOWrapper) -> None:
    """Write UTF-8 to files and pipes on every platform; a terminal shows ? for what it cannot show.

    Names of files that are not UTF-8 come out as they are.
    """
    if stream.isatty():
        stream.reconfigure(errors="replace")
    else:
        stream.reconfigure(encoding="utf-8", errors="backslashreplace" if stream is sys.stderr else "surrogateescape")


def _leave(code: int) -> NoReturn:
    """End the process at once: freeing a loaded model takes longer than some answers."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:
        # Python then reports that it cannot write.
        sys.exit(code)
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run one command line; return its exit code."""
    from triform.cli.inputs.whole_text import forget_files
    from triform.runtime.errors import InputError, TriformError, use_defaults

    try:
        result = app(with_values(arguments), prog_name="triform", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except typer.Exit as exit_:
        return int(exit_.exit_code)
    except typer.TyperException as error:
        return _say_usage(error)
    except InputError as error:
        return asked_to_end(error) or _say(with_origins(spelled(str(error))), 2)
    except TriformError as error:
        return asked_to_end(error) or _say(with_origins(spelled(str(error))), 1)
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 1
    except ReaderGone:
        _drop_stdout()
        return 0
    except BaseException as error:
        # A panic in a Rust library is not an Exception.
        return asked_to_end(error) or _unexpected(error)
    finally:
        use_defaults(())
        forget_files()


def _drop_stdout() -> None:
    """Redirect standard output to nothing, or Python tries to write what is left, and complains, while exiting."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say_usage(error: typer.TyperException) -> int:
    text = getattr(error, "format_message", lambda: str(error))()
    if "\n" in text:
        # The help page, which is shown for a command without arguments.
        print(text, file=sys.stderr)
        return 2
    context = getattr(error, "ctx", None)
    if context is not None:
        use_origins_of(context)
    return _say(f"{with_origins(text)} See triform --help.", 2)


def _unexpected(error: BaseException) -> int:
    if os.environ.get("TRIFORM_DEBUG"):
        raise error
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        try:
            sys.stdout.flush()
        except OSError:
            _drop_stdout()
        return _say(f"cannot write {error.filename or 'standard output'}: {error.strerror}", 1)
    from triform.runtime.errors import is_out_of_memory
    from triform.runtime.printable import one_line, shortened

    if is_out_of_memory(error):
        return _say("this does not fit into memory; give shorter inputs, or fewer at a time", 1)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        # Such as a name that is too long, or a loop of links.
        return _say(f"{_name(error.filename)} cannot be used: {error.strerror}", 1)
    if isinstance(error, RecursionError):
        return _say("a path, or what a file holds, is nested too deeply", 1)
    if isinstance(error, UnicodeEncodeError):
        # Python stands for bytes of a name that are not UTF-8 with what UTF-8 cannot write.
        return _say(f"{_name(error.object)} is not valid Unicode; give the file or the folder another name", 1)
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return _say("the system starts no more threads: a limit of memory or of processes is reached", 1)
    first = (str(error).splitlines() or ["no message"])[0]
    cause = one_line(f"{type(error).__name__}: {shortened(first, _LONGEST)}")
    print(f"internal error: {cause}; run with TRIFORM_DEBUG=1 for the traceback", file=sys.stderr)
    return 1


def _name(filename: object) -> str:
    from triform.runtime.printable import shortened

    return shortened(os.fsdecode(filename) if isinstance(filename, bytes) else str(filename), _LONGEST)


def _say(message: str, code: int) -> int:
    from triform.runtime.printable import one_line

    print(f"error: {one_line(message)}", file=sys.stderr)
    return code
