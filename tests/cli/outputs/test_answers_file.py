"""Files of answers that grow over several runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from triform.cli.outputs.answers_file import answers_file
from triform.runtime.errors import InputError


def write(path, values, *, resume=False, fail=None):
    with answers_file(path, source=None, resume=resume) as file:
        for value in values[file.done :]:
            if value == fail:
                raise KeyboardInterrupt
            file.write(value)


ANSWERS = [{"prompt": f"p{n}", "generated_text": "é" * n} for n in range(5)]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_whole_run_leaves_only_the_file(tmp_path):
    write(tmp_path / "o.jsonl", ANSWERS)
    assert lines(tmp_path / "o.jsonl") == ANSWERS
    assert os.listdir(tmp_path) == ["o.jsonl"]


@pytest.mark.parametrize("cut", [0, 1, 10])
def test_a_run_that_ended_early_is_resumed(tmp_path, cut, capsys):
    part = tmp_path / "o.jsonl.part"
    (tmp_path / "o.jsonl").write_text("an older one")
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "o.jsonl", ANSWERS, fail=ANSWERS[3])
    assert "--resume" in capsys.readouterr().err
    assert lines(part) == ANSWERS[:3]
    # A kill in the middle of a write leaves a line without an end.
    content = part.read_bytes()
    part.write_bytes(content[: len(content) - cut])
    write(tmp_path / "o.jsonl", ANSWERS, resume=True)
    assert lines(tmp_path / "o.jsonl") == ANSWERS
    assert not part.exists()


def test_what_an_earlier_run_left_is_never_emptied_in_silence(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "o.jsonl", ANSWERS, fail=ANSWERS[2])
    with pytest.raises(InputError, match="--resume goes on from there, or remove it"):
        write(tmp_path / "o.jsonl", ANSWERS)
    assert lines(tmp_path / "o.jsonl.part") == ANSWERS[:2]


def test_a_run_that_wrote_nothing_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "o.jsonl", ANSWERS, fail=ANSWERS[0])
    assert os.listdir(tmp_path) == []


def test_resume_without_anything_to_resume_begins(tmp_path):
    write(tmp_path / "o.jsonl", ANSWERS, resume=True)
    assert lines(tmp_path / "o.jsonl") == ANSWERS


def test_one_process_at_a_time(tmp_path):
    code = (
        "import sys; from pathlib import Path; from triform.cli.outputs.answers_file import answers_file\n"
        "with answers_file(Path(sys.argv[1]), source=None, resume=False) as file:\n"
        "    file.write({'prompt': 'theirs'}); print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, tmp_path / "o.jsonl"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        for resume in (False, True):
            with pytest.raises(InputError, match="is being written by another process"):
                write(tmp_path / "o.jsonl", ANSWERS, resume=resume)
        other.stdin.close()
    assert lines(tmp_path / "o.jsonl") == [{"prompt": "theirs"}]


def test_answers_to_something_else_are_not_gone_on_with(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "o.jsonl", ANSWERS, fail=ANSWERS[2])
    with answers_file(tmp_path / "o.jsonl", source=None, resume=True) as file:
        file.check_question({"prompt": "p1"})
        with pytest.raises(InputError, match="line 2 of the unfinished output answers something else"):
            file.check_question({"prompt": "p0"})


def test_the_input_is_not_the_output(tmp_path):
    (tmp_path / "o.jsonl").write_text("{}\n")
    with (
        pytest.raises(InputError, match="it is the input"),
        answers_file(tmp_path / "o.jsonl", source=tmp_path / "o.jsonl", resume=False),
    ):
        pass
    with pytest.raises(InputError, match="--output"), answers_file(None, source=None, resume=True):
        pass
