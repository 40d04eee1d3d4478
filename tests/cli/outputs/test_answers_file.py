"""Files of answers that grow over several runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from triform.cli.inputs.records import Record
from triform.cli.outputs.answers_file import answers_file
from triform.cli.outputs.part_file import check_not_read
from triform.cli.outputs.run_log import Run
from triform.cli.outputs.vectors_file import rows_of_vectors
from triform.runtime.errors import InputError


@pytest.fixture(autouse=True)
def bundle(tmp_path_factory, monkeypatch):
    """The bundle that answers, of which a log reads no more than the manifest."""
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "manifest.json").write_text("{}")
    monkeypatch.setattr(sys.modules[__name__], "BUNDLE", folder)
    return folder


BUNDLE = None


def write(path, values, *, resume=False, fail=None, **options):
    with answers_file(path, Run(BUNDLE, options), source=None, resume=resume) as file:
        records = [Record(number, value["prompt"]) for number, value in enumerate(values, 1)]
        for record in file.remaining(records, lambda record: record):
            value = values[record.number - 1]
            if value == fail:
                raise KeyboardInterrupt
            file.write(record, value)


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
    with pytest.raises(InputError, match="continue it with --resume, or delete that file"):
        write(tmp_path / "o.jsonl", ANSWERS)
    assert lines(tmp_path / "o.jsonl.part") == ANSWERS[:2]


def test_what_a_link_names_is_written(tmp_path):
    """As other outputs and a shell do; its folder may be on another disk, and keeps what is unfinished."""
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "o.jsonl", tmp_path / "disk" / "answers.jsonl"
    link.symlink_to("disk/answers.jsonl")
    with pytest.raises(KeyboardInterrupt):
        write(link, ANSWERS, fail=ANSWERS[3])
    assert set(os.listdir(tmp_path)) == {"disk", "o.jsonl"}
    write(link, ANSWERS, resume=True)
    assert link.is_symlink()
    assert lines(target) == ANSWERS
    assert os.listdir(tmp_path / "disk") == ["answers.jsonl"]


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
        "from triform.cli.inputs.records import Record; from triform.cli.outputs.run_log import Run\n"
        "run = Run(Path(sys.argv[2]), {})\n"
        "with answers_file(Path(sys.argv[1]), run, source=None, resume=False) as file:\n"
        "    file.write(Record(1, 'theirs'), {'prompt': 'theirs'}); print('ready', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, tmp_path / "o.jsonl", BUNDLE]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        for resume in (False, True):
            with pytest.raises(InputError, match="is being written by another process"):
                write(tmp_path / "o.jsonl", ANSWERS, resume=resume)
        other.stdin.close()
    assert lines(tmp_path / "o.jsonl") == [{"prompt": "theirs"}]


@pytest.fixture
def unfinished(tmp_path):
    """An output that has two answers."""
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "o.jsonl", ANSWERS, fail=ANSWERS[2], top_k=4)
    return tmp_path / "o.jsonl"


def test_another_input_is_not_continued(unfinished):
    others = [ANSWERS[0], {"prompt": "another"}, *ANSWERS[2:]]
    with pytest.raises(InputError, match="was made from another input: record 2 differs"):
        write(unfinished, others, resume=True, top_k=4)
    with pytest.raises(InputError, match="has 2 results, but the input has 1 records"):
        write(unfinished, ANSWERS[:1], resume=True, top_k=4)
    # What follows may be another: a line was mended, or some were added.
    write(unfinished, [*ANSWERS[:2], {"prompt": "new"}], resume=True, top_k=4)
    assert lines(unfinished) == [*ANSWERS[:2], {"prompt": "new"}]


@pytest.mark.parametrize("options", [{"top_k": 5}, {}, {"top_k": 4, "seed": 1}])
def test_other_options_are_not_continued(unfinished, options, capsys):
    capsys.readouterr()
    with pytest.raises(InputError, match=r"was made with another `(top_k|seed)`"):
        write(unfinished, ANSWERS, resume=True, **options)
    # Nor is it said that --resume continues.
    assert capsys.readouterr().err == ""


def test_wider_vectors_do_not_empty_a_file(tmp_path):
    """The file is shorter than one row of the second run."""
    arguments = {"npy": False, "source": None}
    with (
        pytest.raises(KeyboardInterrupt),
        rows_of_vectors(
            2, "float32", tmp_path / "v", Run(BUNDLE, {"dimensions": 2}), resume=False, **arguments
        ) as file,
    ):
        file.write(Record(1, "a"), np.array([1, 2], np.float32))
        raise KeyboardInterrupt
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with (
        pytest.raises(InputError, match="another `dimensions`"),
        rows_of_vectors(4, "float32", tmp_path / "v", Run(BUNDLE, {"dimensions": 4}), resume=True, **arguments),
    ):
        pass
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_another_bundle_is_not_continued(unfinished, bundle):
    (bundle / "manifest.json").write_text('{"another": 1}')
    with pytest.raises(InputError, match="was made with another bundle"):
        write(unfinished, ANSWERS, resume=True, top_k=4)


def test_without_its_log_nothing_is_continued(unfinished):
    log = unfinished.with_name("o.jsonl.part.log")
    log.write_bytes(log.read_bytes()[:-20])
    with pytest.raises(InputError, match="its log is damaged"):
        write(unfinished, ANSWERS, resume=True, top_k=4)
    log.unlink()
    with pytest.raises(InputError, match="log is missing; delete it to start again"):
        write(unfinished, ANSWERS, resume=True, top_k=4)
    assert lines(unfinished.with_name("o.jsonl.part")) == ANSWERS[:2]


def test_the_input_is_not_the_output(tmp_path):
    run = Run(BUNDLE, {})
    (tmp_path / "o.jsonl").write_text("{}\n")
    with (
        pytest.raises(InputError, match="it is the input"),
        answers_file(tmp_path / "o.jsonl", run, source=tmp_path / "o.jsonl", resume=False),
    ):
        pass
    with pytest.raises(InputError, match="--output"), answers_file(None, run, source=None, resume=True):
        pass


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_what_is_read_is_not_written_by_another_name(tmp_path, link):
    source, other, bundle = tmp_path / "in.wav", tmp_path / "out.txt", tmp_path / "bundle"
    source.touch()
    bundle.mkdir()
    check_not_read(tmp_path / "new.txt", [source, tmp_path / "gone.wav"], bundle)
    link(other, source)
    with pytest.raises(InputError, match=r"out\.txt cannot be written: it is the input"):
        check_not_read(other, [tmp_path / "gone.wav", source], bundle)
    # A bundle with a file that it does not list is refused.
    into = tmp_path / "into"
    into.symlink_to(bundle / "new.npy")
    for path in (bundle / "new.npy", bundle / "folder" / "new.npy", into):
        with pytest.raises(InputError, match="it is in the folder of the bundle"):
            check_not_read(path, [source], bundle)


@pytest.mark.parametrize("damage", ["joined", "lost", "zeros", "changed", "exchanged"])
def test_damaged_answers_are_not_continued(tmp_path, damage):
    output, part = tmp_path / "o.jsonl", tmp_path / "o.jsonl.part"
    with pytest.raises(KeyboardInterrupt):
        write(output, ANSWERS, fail=ANSWERS[4])
    written = part.read_bytes().splitlines(keepends=True)
    second = written[1]
    changes = {
        "joined": [second[:-1]],
        "lost": [],
        # What a file may have where the power went while it was written.
        "zeros": [bytes(len(second) - 1) + b"\n"],
        "changed": [second.replace(b"p1", b"p7")],
        "exchanged": [written[2]],
    }
    damaged = b"".join([written[0], *changes[damage], *written[2:]])
    part.write_bytes(damaged)
    with pytest.raises(InputError, match="is damaged: its result 2 is not what was written; delete it"):
        write(output, ANSWERS, resume=True)
    # Whoever wants to rescue what is whole still has it.
    assert part.read_bytes() == damaged and not output.exists()


def test_damaged_rows_are_not_continued(tmp_path):
    vectors = np.arange(20, dtype=np.float32).reshape(4, 5)

    def write_rows(*, resume):
        with rows_of_vectors(
            5, "float32", tmp_path / "v.npy", Run(BUNDLE, {}), npy=True, source=None, resume=resume
        ) as file:
            inputs = [(Record(number, str(number)), str(number)) for number in range(1, 5)]
            for record, _ in file.remaining(inputs):
                if record.number == 4 and not resume:
                    raise KeyboardInterrupt
                file.write(record, vectors[record.number - 1])

    with pytest.raises(KeyboardInterrupt):
        write_rows(resume=False)
    part = tmp_path / "v.npy.part"
    whole = part.read_bytes()
    part.write_bytes(whole[:-1] + b"\0")
    with pytest.raises(InputError, match="its result 3 is not what was written"):
        write_rows(resume=True)
    part.write_bytes(whole)
    write_rows(resume=True)
    np.testing.assert_array_equal(np.load(tmp_path / "v.npy"), vectors)
