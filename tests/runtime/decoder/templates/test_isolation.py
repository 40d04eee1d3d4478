"""The child process that renders templates: it holds no file of its parent, ends with it, and is replaced."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from triform.runtime.decoder.templates import isolation
from triform.runtime.decoder.templates.functions import Refusal


def count(source, variables):
    """Stands for an engine: its own process, and how often it was called there."""
    if source == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if source == "wait":
        time.sleep(60)
    if source == "fill":
        # Twice as much as a template may take, which any machine for tests has.
        return len("x" * 2**31)
    if source == "fail":
        raise ValueError("first line\nsecond")
    return f"{os.getpid()} {variables}"


@pytest.fixture
def render():
    made = isolation.isolated("test", count)
    yield made
    for child in [child for name, child in isolation._children.items() if name == "test"]:
        child.close()


def test_it_is_another_process_and_stays(render):
    first, second = render("", {}), render("", {})
    assert first == second
    assert int(first.split()[0]) != os.getpid()


def test_it_ends_and_another_takes_its_place(render):
    first = int(render("", {}).split()[0])
    isolation.end()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert int(render("", {}).split()[0]) not in (first, os.getpid())


def test_it_answers_before_it_ends(render):
    """Another thread asks all the time, and always gets a text of a child."""
    answers = []
    asking = threading.Thread(target=lambda: answers.extend(render("", {"a": number}) for number in range(300)))
    asking.start()
    while asking.is_alive():
        isolation.end()
    assert [answer.partition(" ")[2] for answer in answers] == [f"{{'a': {number}}}" for number in range(300)]


def test_what_it_says(render):
    with pytest.raises(Refusal, match=r"^first line$"):
        render("fail", {})
    with pytest.raises(Refusal, match="MemoryError"):
        render("fill", {})
    assert render("", {"a": [1.5, None, "ä\ud800"]}).endswith("{'a': [1.5, None, 'ä\\ud800']}")


@pytest.mark.parametrize(("characters", "refused"), [(2**26, False), (2**26 + 1, True)])
def test_a_text_that_no_model_reads(characters, refused):
    """More than 64 Mi characters."""
    kind, text = json.loads(
        isolation._answer(lambda source, variables: "a" * characters, json.dumps(["", {}]).encode())
    )
    assert (kind, len(text)) == (("refused", 35) if refused else ("text", characters))
    assert not refused or text == "it makes a text that no model reads"


def test_another_takes_its_place(render):
    first = render("", {})
    with pytest.raises(Refusal, match="more memory or time than a prompt is worth"):
        render("die", {})
    assert render("", {}) != first


class Interrupted(Exception):
    """What the handler of a signal raises, as that of Ctrl-C does."""


# A request that fits into a pipe, and one of which the child has read a part.
@pytest.mark.parametrize("size", [3, 2**18])
def test_after_an_interrupt_nobody_gets_the_answer_to_another_request(render, size):
    def interrupt(*_):
        raise Interrupted

    child = int(render("", {}).split()[0])
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        if size > 2**16:
            os.kill(child, signal.SIGSTOP)
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupted):
            render("wait", {"mine": "x" * size})
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert render("", {"other": 1}).endswith(" {'other': 1}")
    assert render("", {"third": 2}).endswith(" {'third': 2}")
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


@pytest.mark.parametrize("value", [{1: 2}, (1, 2), {"a": {3}}])
def test_what_json_would_change_stays_in_this_process(render, value):
    assert render("", {"value": value}) == f"{os.getpid()} { ({'value': value}) }"


def test_it_has_no_file_of_its_parent_open(tmp_path):
    files = [(tmp_path / "x").open("a") for _ in range(40)]
    # Its pipes get the numbers of these, so that those right behind are taken by the others.
    for file in files[:4]:
        file.close()
    pid = isolation.isolated("files", count)("", {}).split()[0]
    for file in files[4:]:
        file.close()
    opened = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    isolation._children.pop("files").close()
    assert sorted(path.partition(":")[0] for path in opened) == ["/dev/null"] * (len(opened) - 2) + ["pipe", "pipe"]


PARENT = """
import os, sys, time
from tests.runtime.decoder.templates.test_isolation import count
from triform.runtime.decoder.templates import isolation
print(isolation.isolated("x", count)("", {}).split()[0], flush=True)
time.sleep(60)
"""


def test_it_ends_with_its_parent():
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    # The pipe that the child inherited would keep this open.
    assert parent.communicate(timeout=30)[0] == ""
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        if "zombie" in Path(f"/proc/{child}/status").read_text():
            break
        time.sleep(0.05)
    else:
        assert not Path(f"/proc/{child}").exists()
