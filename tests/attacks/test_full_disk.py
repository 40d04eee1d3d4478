"""Outputs that do not fit on the disk: one line that names the output, and nothing half-written under its name."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Bytes that any file may have: more than a log of a run, less than the outputs below.
_LIMIT = 4096
_RUN = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
    "from triform.cli.main import main; main()"
)


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["embed", "--file", "{texts}", "--output", "{output}"], "v.npy"),
        (["embed", "--file", "{texts}", "--output", "{output}"], "v.jsonl"),
        (["search", "a ship", "--file", "{texts}", "--index", "{output}"], "index"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_command_that_writes_vectors(sentence_bundle, tmp_path, arguments, output):
    texts, target = tmp_path / "texts.txt", tmp_path / output
    texts.write_text("".join(f"Line {number} about a ship.\n" for number in range(200)))
    command, *rest = (part.format(texts=texts, output=target) for part in arguments)
    done = subprocess.run(
        [sys.executable, "-c", _RUN.format(limit=_LIMIT), command, sentence_bundle, *rest],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    *notes, error = done.stderr.splitlines()
    assert error == f"error: cannot write {target}: File too large"
    assert all(note.startswith("note: the results so far are in ") for note in notes)
    assert not target.exists()
