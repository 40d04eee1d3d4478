"""Programs that are asked to end, by `kill`, `docker stop`, a shutdown or a terminal that is closed."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from triform.cli.signals import asked_to_end

WRITES = """
import sys, time
from pathlib import Path
from triform.cli.signals import end_in_order
from triform.runtime.files import whole_file

end_in_order()
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("begun", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_files_are_put_in_order(tmp_path, number, code):
    (tmp_path / "kept").write_bytes(b"what was there before")
    command = [sys.executable, "-c", WRITES, tmp_path / "kept"]
    # These tests may themselves be run by nohup.
    heed = lambda: signal.signal(number, signal.SIG_DFL)  # noqa: E731
    with subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=heed) as process:
        assert process.stdout.readline() == b"begun\n"
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(number)
        assert process.wait(30) == code
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"what was there before"


def test_what_nohup_ignores_is_ignored(tmp_path):
    say = "import os, signal; from triform.cli.signals import end_in_order; end_in_order(); "
    say += "os.kill(os.getpid(), signal.SIGHUP); print('still here')"
    ignore = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)  # noqa: E731
    done = subprocess.run([sys.executable, "-c", say], preexec_fn=ignore, capture_output=True, check=True)
    assert done.stdout == b"still here\n"


IMPORTS = """
import os, sys, time
from triform.cli import main, signals

def fails(*_, **__):
    try:
        os.kill(os.getpid(), int(sys.argv[1]))
        time.sleep(60)
    except BaseException as error:
        raise ImportError("initialization failed") from error

main.app = fails
signals.end_in_order()
signals.interrupt()
sys.exit(main.run([]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_a_library_that_turns_a_signal_into_an_error_of_its_own(number, code):
    """As modules in C do whose initialization is interrupted."""
    heed = lambda: signal.signal(number, signal.SIG_DFL)  # noqa: E731
    done = subprocess.run([sys.executable, "-c", IMPORTS, str(int(number))], preexec_fn=heed, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (code, b"", b"")


def test_an_error_that_is_raised_from_itself_came_of_no_signal():
    error = ValueError("wrong")
    error.__cause__ = error
    assert asked_to_end(error) is None


def test_a_command(float_bundle):
    """It answers a line after another, and waits for the next."""
    command = [sys.executable, "-m", "triform", "chat", str(float_bundle), "--max-new-tokens", "2"]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **streams) as process:
        process.stdin.write(b"a\n")
        process.stdin.flush()
        assert process.stdout.read(1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        assert process.stderr.read() in (b"", b"note: cut after 2 tokens\n")


INTERRUPTED = """
import os, signal, sys

module = sys.argv.pop(1)

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupt())
from triform.cli.entry import start
start()
"""


@pytest.mark.parametrize("name", ["triform.cli.main", "typer", "triform.runtime.errors", "numpy", "onnxruntime"])
def test_an_interrupt_while_modules_are_imported(name, sentence_bundle):
    command = [sys.executable, "-c", INTERRUPTED, name, "embed", sentence_bundle, "a text"]
    heed = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    done = subprocess.run(command, preexec_fn=heed, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


def test_an_interrupt_that_the_parent_ignores_is_ignored(sentence_bundle):
    command = [sys.executable, "-c", INTERRUPTED, "typer", "embed", sentence_bundle, "a text"]
    ignore = lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)  # noqa: E731
    done = subprocess.run(command, preexec_fn=ignore, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b'{"text"')
