"""`triform chat` interrupted, and on a terminal of its own."""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
import time

from tests.helpers.talking import FIRST, SHORT, answers


def test_ctrl_c_stops_the_answer_and_keeps_what_was_said(chat, monkeypatch, tmp_path):
    """A signal while the model runs for the fourth time: the answer has three tokens, the next turn is whole."""
    from triform.runtime.graphs.decoding import step as step

    runs, original, file = [], step.run_step, tmp_path / "talk.json"

    def interrupted(session, binding):
        runs.append(binding.input_ids.shape[1])
        if len(runs) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        original(session, binding)

    whole = chat(FIRST)[1]
    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(step, "run_step", interrupted)
        code, out, err = chat(FIRST, f"/save {file}", "/undo", FIRST)
    assert signal.getsignal(signal.SIGINT) is before
    kept = json.loads(file.read_text())["messages"][1]["content"]
    assert (code, out) == (0, f"{kept}\n{whole}")
    assert whole.startswith(kept)
    assert "note: stopped\n" in err
    assert runs[1:4] == [1, 1, 1]
    # The turn that follows does not read the prompt again.
    assert runs[4] <= 2


def test_ctrl_c_before_the_first_token_takes_the_turn_back(chat, monkeypatch, tmp_path):
    from triform.runtime.graphs.decoding import step as step

    original, file = step.run_step, tmp_path / "talk.json"

    def interrupted(session, binding):
        os.kill(os.getpid(), signal.SIGINT)
        original(session, binding)

    monkeypatch.setattr(step, "run_step", interrupted)
    code, out, err = chat(FIRST, f"/save {file}")
    assert (code, out) == (0, "")
    assert err.startswith("note: stopped before the first token; the turn was undone\n")
    assert json.loads(file.read_text()) == {"messages": []}


def test_ctrl_c_twice_leaves(chat, monkeypatch):
    from triform.runtime.graphs.decoding import step as step

    def interrupted(session, binding):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(step, "run_step", interrupted)
    assert chat(FIRST)[:2] == (130, "")


def hear_ctrl_c():
    """A test run started in the background ignores Ctrl-C, and its children would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_from_outside(float_bundle):
    command = [sys.executable, "-m", "triform", "chat", str(float_bundle), "--temperature", "3", "--seed", "1"]
    # Its end is banned, and never comes by itself.
    command += ["--on-overflow", "shift", "--max-new-tokens", "1000000", "--min-new-tokens", "1000000"]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, preexec_fn=hear_ctrl_c, **streams) as process:
        process.stdin.write(b"a\n")
        process.stdin.flush()
        seen = process.stdout.read(10)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(b"/undo\n", timeout=60)
    assert (process.returncode, len(seen)) == (0, 10)
    assert rest.endswith(b"\n")
    assert err == b"note: stopped\nnote: undone: a\n"


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *command, **environment):
        self._fd, slave = os.openpty()
        self._seen = ""
        self._process = subprocess.Popen(
            [str(one) for one in command],
            preexec_fn=lambda: (os.login_tty(slave), hear_ctrl_c()),
            env={**os.environ, "TERM": "dumb", **environment},
        )
        os.close(slave)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait(30)
        os.close(self._fd)

    def type(self, text):
        os.write(self._fd, text.encode())

    def interrupt(self):
        """Press Ctrl-C until there is a prompt: readline overlooks one that comes before it waits for a key."""
        self.wait_for("dropped")
        for _ in range(60):
            self.type("\x03")
            if select.select([self._fd], [], [], 0.5)[0]:
                break
        self.wait_for("> ")

    def wait_for(self, text):
        """What came until this; it is gone then."""
        until = time.monotonic() + 30
        while text not in self._seen:
            assert time.monotonic() < until, self._seen
            assert self._read(), self._seen
        found, _, self._seen = self._seen.partition(text)
        return found

    def end(self):
        """What came until the program ended, and its exit code."""
        while self._read():
            pass
        return self._seen, self._process.wait(30)

    def _read(self):
        if not select.select([self._fd], [], [], 30)[0]:
            return False
        try:
            data = os.read(self._fd, 4096)
        except OSError as error:
            # What Linux says where others give nothing.
            if error.errno != errno.EIO:
                raise
            return False
        self._seen += data.decode("utf-8", "replace")
        return bool(data)


def test_on_a_terminal(float_bundle, tmp_path):
    history = tmp_path / "typed"
    home = tmp_path / "home"
    home.mkdir()
    command = (sys.executable, "-m", "triform", "chat", float_bundle, *SHORT)
    with Terminal(*command, "--history", history, HOME=str(home)) as terminal:
        terminal.wait_for("/help lists commands")
        terminal.wait_for("> ")
        terminal.type("dropped")
        terminal.interrupt()
        terminal.type(f"{FIRST}\n")
        terminal.wait_for(FIRST)
        assert answers(float_bundle, FIRST).strip() in terminal.wait_for("> ").replace("\r", "")
        terminal.type("/undo\\\n")
        terminal.wait_for(". ")
        terminal.type("\n")
        assert f"undone: {FIRST}" in terminal.wait_for("> ")
        terminal.type("\x04")
        assert terminal.end()[1] == 0
    # onnxruntime's own files are there; none of what was typed is.
    assert [one.name for one in home.iterdir()] in ([], [".cache"])
    assert FIRST in history.read_text().splitlines()
