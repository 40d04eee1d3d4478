"""Where output goes and what happens when it cannot: readers that leave, full disks, closed streams, encodings."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
import time

import pytest

from triform.cli.outputs.export_progress import export_progress
from triform.cli.outputs.progress import seconds_bar
from triform.export.report import StepProgress
from triform.runtime.panics import OWN_THREADS

TRIFORM = [sys.executable, "-m", "triform"]
SHORT = ["hi", "--max-new-tokens", "3", "--temperature", "0"]


def shell(redirection, *arguments, **environment):
    """Run triform with its streams redirected as a shell does it."""
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", *TRIFORM, *map(str, arguments)]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**os.environ, **environment}
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["generate", "BUNDLE", *SHORT],
        ["generate", "BUNDLE", *SHORT, "--json"],
        ["inspect", "BUNDLE"],
        ["inspect", "BUNDLE", "--json"],
        ["verify", "BUNDLE"],
        ["generate", "--help"],
        ["--help"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_nobody_reads(float_bundle, arguments):
    """The pipe's other end is closed before the program starts, so that its first write meets nobody."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [*TRIFORM, *(str(float_bundle) if part == "BUNDLE" else part for part in arguments)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", [["inspect"], ["generate", *SHORT]], ids=" ".join)
def test_a_full_disk_under_standard_output(float_bundle, arguments):
    done = shell(">/dev/full", arguments[0], float_bundle, *arguments[1:])
    assert done.returncode == 1
    assert done.stderr == "error: cannot write standard output: No space left on device\n"


def test_closed_standard_output(float_bundle):
    done = shell(">&-", "generate", float_bundle, *SHORT)
    assert (done.returncode, done.stderr) == (0, "")


def test_closed_standard_input_is_an_empty_prompt(float_bundle):
    done = shell("<&-", "generate", float_bundle)
    assert done.returncode == 2
    assert "the prompt is empty" in done.stderr


# Control characters, but line breaks and tabs.
STEERING = {chr(code) for code in (*range(32), *range(127, 160))} - {"\n", "\t"}
ODD = ("a", "--raw", "--temperature", 3, "--seed", 1, "--max-new-tokens", 60)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-16"])
def test_files_and_pipes_get_utf_8(float_bundle, tmp_path, encoding):
    """Random weights that choose among all bytes print some that only Unicode has."""
    arguments = ("generate", float_bundle, *ODD)
    unicode = shell("", *arguments, PYTHONIOENCODING="utf-8").stdout
    assert not unicode.isascii()
    done = shell(f"> {tmp_path / 'out.txt'}", *arguments, PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == unicode
    assert shell("", *arguments, PYTHONIOENCODING=encoding).stdout == unicode


def test_a_terminal_that_knows_only_ascii(float_bundle):
    """What it cannot show is a question mark, what would steer it an escape, and the rest is there."""
    arguments = ("generate", float_bundle, *ODD)
    unicode = shell("", *arguments, PYTHONIOENCODING="utf-8").stdout
    shown = "".join(rf"\x{ord(letter):02x}" if letter in STEERING else letter for letter in unicode[:-1])
    seen = _on_a_terminal(*arguments, PYTHONIOENCODING="ascii")
    assert seen == (shown + unicode[-1]).encode("ascii", "replace").decode()


def _on_a_terminal(*arguments, **environment):
    terminal, its_end = pty.openpty()
    command = [*TRIFORM, *map(str, arguments)]
    running = subprocess.Popen(command, stdin=its_end, stdout=its_end, env={**os.environ, **environment})
    os.close(its_end)
    seen = b""
    # Linux tells with an error that nobody holds the other end any longer.
    with contextlib.suppress(OSError):
        while part := os.read(terminal, 1 << 16):
            seen += part
    os.close(terminal)
    assert running.wait() == 0
    return seen.decode().replace("\r\n", "\n")


class Terminal:
    """A standard error that says it is a terminal and remembers what it was sent."""

    encoding = "utf-8"

    def __init__(self):
        self.seen = ""

    def isatty(self):
        return True

    def write(self, text):
        self.seen += text

    def flush(self):
        pass


def test_a_bar_on_a_terminal_names_the_running_step(monkeypatch, capsys):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with export_progress(as_json=True) as show:
        show(StepProgress("load"))
        show(StepProgress("quantize"))
        for done in range(61):
            show(StepProgress("quantize", done, 61))
    assert "quantize" in terminal.seen
    assert "60/61" in terminal.seen
    assert "\N{HORIZONTAL ELLIPSIS}" not in terminal.seen
    assert "{" not in terminal.seen
    assert capsys.readouterr().out == ""


def test_bars_are_drawn_without_a_thread_of_another_library(monkeypatch, tmp_path):
    """Beside one, what libraries say on standard error could not be hidden."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    before = set(threading.enumerate())
    with export_progress(as_json=True), seconds_bar(9.0, results_to=tmp_path / "a"):
        names = {thread.name for thread in set(threading.enumerate()) - before}
    assert names == {f"{OWN_THREADS}-progress"}
    assert set(threading.enumerate()) <= before


def test_plain_lines_elsewhere(capsys):
    with export_progress(as_json=False) as show:
        show(StepProgress("trace"))
        show(StepProgress("trace", 1, 7))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("trace")
    assert captured.err.count("\n") == 1


def test_events_for_programs(monkeypatch, capsys):
    now = iter([0.0, 100.0, 100.1, 100.7])
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    with export_progress(as_json=True) as show:
        show(StepProgress("quantize"))
        for done in (0, 1, 2):
            show(StepProgress("quantize", done, 7))
    captured = capsys.readouterr()
    assert captured.out == ""
    # The second part began a tenth of a second after the first.
    assert [json.loads(line) for line in captured.err.splitlines()] == [
        {"step": "quantize", "done": 0, "total": None},
        {"step": "quantize", "done": 0, "total": 7},
        {"step": "quantize", "done": 2, "total": 7},
    ]


def test_what_a_provider_leaves_to_the_cpu_is_a_note(int4_bundle):
    """Azure's provider is in every package of onnxruntime, and runs no ordinary operator."""
    done = subprocess.run(
        [*TRIFORM, "generate", int4_bundle, *SHORT, "--provider", "azure"], capture_output=True, text=True
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("note: provider azure leaves ") and "GroupQueryAttention" in line
    assert done.returncode == 0
