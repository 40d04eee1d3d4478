"""What a bundle says reaches a terminal as text: no control character of it does."""

from __future__ import annotations

import os
import select
import subprocess
import sys

import pytest

from tests.helpers.bundles import adopt, change

# Clears the screen, sets the title, and asks the terminal to type.
EVIL = "\x1b[2J\x1b]0;gone\x07\x9b6n\x08\r"


def on_a_terminal(*arguments, module="triform"):
    """Exit code of a command, and what it writes to a terminal that stands for both of its outputs."""
    master, slave = os.openpty()
    command = [sys.executable, *(["-m", module] if module else []), *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=slave, stderr=slave)
    os.close(slave)
    seen = b""
    while select.select([master], [], [], 60)[0]:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    os.close(master)
    # A terminal itself puts a carriage return before each line break.
    return process.wait(60), seen.replace(b"\r\n", b"\n").decode("utf-8")


def controls(text):
    return sorted({letter for letter in text if (letter < " " and letter not in "\n\t") or "\x7f" <= letter <= "\x9f"})


def test_the_words_of_a_manifest(own_bundle):
    change(own_bundle, model_name=f"a{EVIL}b")
    code, seen = on_a_terminal("inspect", own_bundle)
    assert (code, controls(seen)) == (0, [])
    assert r"a\x1b[2J\x1b]0;gone\x07\x9b6n\x08\rb" in seen


@pytest.mark.parametrize(
    "template", ["{{ raise_exception(TEXT) }}", "{{ TEXT.nothing() }}", "{{ TEXT | int(base=99) }}"]
)
def test_the_errors_of_a_template(own_bundle, template):
    adopt(own_bundle, "chat_template.jinja", template.replace("TEXT", f'"{EVIL}"').encode())
    code, seen = on_a_terminal("generate", own_bundle, "a", "--max-new-tokens", 2)
    assert code in (0, 2)
    assert controls(seen) == []


def test_whatever_is_printed():
    """A model's answers, labels and transcripts: all of standard output goes one way."""
    guard = "from triform.cli.outputs.terminal import guard_terminals; guard_terminals()"
    say = f"{guard}; print({EVIL!r}, end=''); print('\\n\\té')"
    code, seen = on_a_terminal("-c", say, module=None)
    assert (code, seen) == (0, "\\x1b[2J\\x1b]0;gone\\x07\\x9b6n\\x08\\r\n\té\n")
    piped = subprocess.run([sys.executable, "-c", say], capture_output=True, check=True)
    assert piped.stdout.decode("utf-8") == f"{EVIL}\n\té\n"
