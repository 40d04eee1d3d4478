"""`triform batch` from the outside: each row has what the model's own methods give, and none is lost or doubled."""

from __future__ import annotations

import csv
import inspect
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import triform
from tests.helpers.batches import errors_in, rows_in, sentences, write_json_lines, write_parquet
from tests.helpers.commands import one_line
from triform.cli.batch.folder import OutputFolder
from triform.cli.batch.planning import find_files


@pytest.fixture(scope="module")
def encoder(sentence_bundle):
    return triform.load_encoder(sentence_bundle)


def assert_vectors(encoder, rows, texts):
    assert [row["text"] for row in rows] == texts
    assert [row["error"] for row in rows] == [None] * len(texts)
    np.testing.assert_allclose([row["embedding"] for row in rows], encoder.embed(texts), rtol=0, atol=1e-6)


def test_files_of_every_kind(call, encoder, sentence_bundle, tmp_path):
    texts, output = sentences(250), tmp_path / "out"
    write_parquet(tmp_path / "a.parquet", texts[:100], group=30, extra=["x"] * 100)
    write_json_lines(tmp_path / "b.jsonl", [{"text": text, "n": 1} for text in texts[100:150]])
    with (tmp_path / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "text"), *enumerate(texts[150:200])])
    (tmp_path / "d.txt").write_text("\n".join(texts[200:]))
    code, out, err = call(
        "batch", "embed", sentence_bundle, "--input", tmp_path / "[abcd].*", "--output", output, "--block-rows", 40
    )
    assert (code, out, err) == (0, "", f"250 rows computed, 250 in {output / 'rows'}\n")
    rows = rows_in(output)
    assert_vectors(encoder, rows, texts)
    assert [row["input_row"] for row in rows] == [*range(100), *range(50), *range(50), *range(50)]
    assert {row["input_file"] for row in rows} == {
        str(tmp_path / f"{name}") for name in ("a.parquet", "b.jsonl", "c.csv", "d.txt")
    }
    assert [row["id"] for row in rows[:100]] == list(range(100)) and rows[0]["extra"] == "x"
    assert rows[100]["record"] == f'{{"text": "{texts[100]}", "n": 1}}'
    assert rows[151]["id"] == "1"
    # Row groups of 30, 30, 30 and 10 rows: two of them are read together, and fill a block and a half.
    names = [path.name.partition("_")[2] for path in sorted((output / "rows").iterdir())]
    assert names[:4] == [
        "a_000000000000-000000000040.parquet",
        "a_000000000040-000000000060.parquet",
        "a_000000000060-000000000100.parquet",
        "b_000000000000-000000000040.parquet",
    ]
    assert errors_in(output) == []


def test_a_folder_is_read_whole(call, encoder, sentence_bundle, tmp_path):
    folder, texts = tmp_path / "in", sentences(6)
    (folder / "deep").mkdir(parents=True)
    write_parquet(folder / "a.parquet", texts[:3])
    write_parquet(folder / "deep" / "b.parquet", texts[3:])
    (folder / "_SUCCESS").write_text("")
    asked = ("batch", "embed", sentence_bundle, "--output", tmp_path / "out", "--input", folder)
    # The same file by another name is read once.
    assert call(*asked, "--input", folder / "a.parquet")[0] == 0
    assert_vectors(encoder, rows_in(tmp_path / "out"), texts)


def test_vectors_as_embed_writes_them(call, sentence_bundle, tmp_path):
    texts = sentences(5)
    source = write_parquet(tmp_path / "a.parquet", texts)
    lines = tmp_path / "a.txt"
    lines.write_text("\n".join(texts))
    options = ("--dimensions", 8, "--output-dtype", "binary", "--prompt-name", "query")
    call("embed", sentence_bundle, "--file", lines, *options, "--output", tmp_path / "a.npy")
    call("batch", "embed", sentence_bundle, "--input", source, *options, "--output", tmp_path / "out")
    rows = rows_in(tmp_path / "out")
    assert np.array([row["embedding"] for row in rows], np.int8).tolist() == np.load(tmp_path / "a.npy").tolist()


def test_rows_that_fail(call, encoder, sentence_bundle, tmp_path):
    long = "word " * 2000
    # 0xff begins no character of UTF-8; Arrow takes it as text unseen.
    broken = pa.array([b"\xff lamp"], pa.binary()).view(pa.string())
    texts = pa.concat_arrays([pa.array(["snow", None, "  ", long, "rain"]), broken])
    write_parquet(tmp_path / "a.parquet", texts)
    (tmp_path / "b.jsonl").write_text('{"text": "sea"}\n\nno json\n{"text": 3}\n{"other": "x"}\n')
    (tmp_path / "c.csv").write_text('id,text\n1,fog\n2\n3,""\n')
    asked = ("batch", "embed", sentence_bundle, "--input", tmp_path / "[abc].*", "--output", tmp_path / "out")
    code, _, err = call(*asked, "--strict")
    assert code == 0
    assert err.startswith("note: 9 rows have no results; ") and "13 rows computed" in err
    failed = errors_in(tmp_path / "out")
    assert [(file, row) for file, row, _ in failed] == [
        *(("a.parquet", row) for row in (1, 2, 3, 5)),
        *(("b.jsonl", row) for row in (1, 2, 3)),
        *(("c.csv", row) for row in (1, 2)),
    ]
    reasons = [reason for *_, reason in failed]
    assert reasons[:2] == ["it is null", "it is blank"]
    assert reasons[2].startswith("it is longer than the model's ")
    assert reasons[3].startswith("it is not valid Unicode at character 1")
    assert reasons[4:6] == ["it is not JSON", "it is not an object with a text called 'text'"]
    assert reasons[7:] == ["it has 1 cells, and the table 2 columns", "it is blank"]
    # They keep their places, and the others have their vectors. What is no text cannot be read as such.
    files = sorted((tmp_path / "out" / "rows").iterdir())
    rows = [row for file in files for row in parquet.read_table(file, columns=["embedding", "error"]).to_pylist()]
    assert len(rows) == 13
    for row in rows:
        assert (row["embedding"] is None) == (row["error"] is not None)
    good = [row["embedding"] for row in rows if row["error"] is None]
    np.testing.assert_allclose(good, encoder.embed(["snow", "rain", "sea", "fog"]), rtol=0, atol=1e-6)


def test_texts_that_are_cut_are_counted(call, sentence_bundle, tmp_path):
    source = write_parquet(tmp_path / "a.parquet", ["word " * 2000, "snow"])
    err = call("batch", "embed", sentence_bundle, "--input", source, "--output", tmp_path / "out")[2]
    assert "note: cut 1 texts that are longer than the model reads; --strict refuses such texts" in err


def test_a_stopped_run_goes_on_where_it_was(call, encoder, sentence_bundle, tmp_path, monkeypatch):
    from triform.cli.batch import blocks

    texts = sentences(100)
    write_parquet(tmp_path / "a.parquet", texts[:60])
    write_json_lines(tmp_path / "b.jsonl", [{"text": text} for text in texts[60:]])
    output = tmp_path / "out"
    asked = ("batch", "embed", sentence_bundle, "--input", tmp_path / "[ab].*", "--output", output, "--block-rows", 10)
    write, written = blocks.write_block, []

    def write_four(path, table, run):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path)
        write(path, table, run)

    with monkeypatch.context() as patch:
        patch.setattr(blocks, "write_block", write_four)
        code, _, err = call(*asked)
    assert code == 130
    assert err == f"note: the results so far are in {output}; the same command continues\n"
    assert len(list((output / "rows").iterdir())) == 4
    before = {path: path.stat().st_mtime_ns for path in written}
    code, _, err = call(*asked)
    assert (code, err.splitlines()) == (
        0,
        ["note: 40 rows were already there from an earlier run", f"60 rows computed, 100 in {output / 'rows'}"],
    )
    assert {path: path.stat().st_mtime_ns for path in written} == before
    assert_vectors(encoder, rows_in(output), texts)


def test_a_killed_run_loses_and_doubles_nothing(encoder, sentence_bundle, tmp_path):
    texts = sentences(3000)
    source = write_parquet(tmp_path / "a.parquet", texts, group=500)
    output = tmp_path / "out"
    command = [sys.executable, "-m", "triform", "batch", "embed", sentence_bundle, "--input", source]
    command = [str(part) for part in (*command, "--output", output, "--block-rows", 10, "--threads", 1)]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while running.poll() is None and len(list((output / "rows").glob("*"))) < 3:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert len(list((output / "rows").glob("*.parquet"))) < 300
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    rows = rows_in(output)
    assert [row["input_row"] for row in rows] == list(range(3000))
    assert_vectors(encoder, rows, texts)
    # What the killed process had begun is gone.
    assert {path.suffix for path in (output / "rows").iterdir()} == {".parquet"}
    assert {path.name for path in output.iterdir()} == {"run.json", "rows", "errors.parquet"}


def test_answers(call, float_bundle, tmp_path):
    texts = ["Snow", "", "The ferry left", "word " * 2000]
    source = write_parquet(tmp_path / "a.parquet", texts)
    options = ("--max-new-tokens", 6, "--temperature", 0, "--system", "Be brief.")
    call("batch", "generate", float_bundle, "--input", source, *options, "--output", tmp_path / "out")
    rows = rows_in(tmp_path / "out")
    model = triform.load_decoder(float_bundle)
    for row in (rows[0], rows[2]):
        options = triform.GenerationOptions(max_new_tokens=6, temperature=0)
        answer = model.generate(row["text"], options, system="Be brief.")
        expected = (answer.text, answer.finish_reason, len(answer.token_ids), None)
        found = (row["generated_text"], row["finish_reason"], row["generated_tokens"], row["error"])
        assert found == expected
    assert [(row, reason[:30]) for _, row, reason in errors_in(tmp_path / "out")] == [
        (1, "it is blank"),
        (3, rows[3]["error"][:30]),
    ]
    assert "tokens" in rows[3]["error"]


def test_transcripts(call, exported_family, speech_clips, tmp_path):
    bundle, folder = exported_family("whisper")[1], tmp_path / "recordings"
    folder.mkdir()
    for path, _ in speech_clips[:2]:
        (folder / path.name).symlink_to(path)
    (folder / "zz.wav").write_text("no sound")
    options = ("--max-new-tokens", 8, "--temperature", 0, "--language", "en")
    code, _, err = call("batch", "transcribe", bundle, "--input", folder, *options, "--output", tmp_path / "out")
    assert code == 0 and "3 rows computed" in err
    rows = rows_in(tmp_path / "out")
    assert [row["input_file"] for row in rows] == [row["audio"] for row in rows] == sorted(map(str, folder.iterdir()))
    model = triform.load_speech(bundle)
    asked = triform.TranscribeOptions(max_new_tokens=8, temperatures=(0.0,), language="en")
    for row in rows[:2]:
        segments = model.transcribe(row["audio"], asked)
        assert row["transcript"] == "".join(segment.text for segment in segments).strip()
        assert [part["start"] for part in row["segments"]] == [segment.start for segment in segments]
    assert rows[2]["transcript"] is None and "zz.wav" in rows[2]["error"]
    # A folder without audio.
    (tmp_path / "other").mkdir()
    asked = ("batch", "transcribe", bundle, "--input", tmp_path / "other", "--output", tmp_path / "none")
    code, _, err = call(*asked)
    assert code == 2 and "this folder has no recordings and no tables" in one_line(err)
    (tmp_path / "other" / "notes.md").write_text("no sound")
    code, _, err = call(*asked)
    assert code == 1 and "error: no row has results; the first is row 0 of" in err and "notes.md" in err


@pytest.mark.parametrize(
    ("command", "column", "options"),
    [
        ("translate", "translation_text", ("--target-lang", "fr")),
        ("summarize", "summary_text", ("--num-beams", 2)),
        ("rewrite", "generated_text", ("--max-new-tokens", 9, "--temperature", 0)),
    ],
)
def test_what_is_written_about_texts(call, exported_family, tmp_path, command, column, options):
    bundle = exported_family("t5")[1]
    # The third has lines and more sentences than the model reads at once.
    texts = ["The keeper lit the lamp.", "Snow", "The boats came back.\n\n" + "The storm was long. " * 20]
    values = [{"text": text} for text in texts]
    source = write_json_lines(tmp_path / "a.jsonl", values)
    out = call(command, bundle, "--file", source, *options, "--json")[1]
    code, _, err = call("batch", command, bundle, "--input", source, *options, "--output", tmp_path / "out")
    assert code == 0 and "3 rows computed" in err
    expected = [(value[column], value["finish_reason"]) for value in map(json.loads, out.splitlines())]
    assert [(row[column], row["finish_reason"]) for row in rows_in(tmp_path / "out")] == expected


def test_what_is_not_for_tables(call, exported_family, tmp_path):
    source = write_parquet(tmp_path / "a.parquet", ["snow"])
    asked = ("batch", "translate", exported_family("t5")[1], "--input", source, "--output", tmp_path / "out")
    for more, message in (
        (("--target-lang", "zu"), "this model does not translate any to zu"),
        (("--task", "translation_en_to_fr", "--target-lang", "fr"), "instead of the languages"),
        (("--task", "a", "--prefix", "b"), "--task brings its own prefix"),
        (("--target-lang", "fr", "--batch", 0), "--batch must be at least 1, not 0"),
    ):
        code, _, err = call(*asked, *more)
        assert code == 2 and message in one_line(err)
    with pytest.raises(triform.InputError, match="`num_return_sequences` is not for tables"):
        triform.Writing(beams=triform.Beams(num_beams=2, num_return_sequences=2))


def refused(call, bundle, tmp_path, *arguments):
    code, out, err = call("batch", "embed", bundle, "--output", tmp_path / "out", *arguments)
    assert code in (1, 2) and out == ""
    return one_line(err)


def test_inputs_that_cannot_be_used(call, sentence_bundle, tmp_path):
    good = write_parquet(tmp_path / "good.parquet", ["snow"])
    (tmp_path / "bad.parquet").write_text("no table")
    (tmp_path / "bad.csv").write_text("id,body\n1,snow\n")
    (tmp_path / "notes.md").write_text("snow")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes.md").write_text("snow")
    write_json_lines(tmp_path / "other.jsonl", [{"id": 1, "body": "snow"}, {"body": "rain"}])
    write_json_lines(tmp_path / "numbers.jsonl", [{"id": 1}, {"id": 2, "text": [3]}, {"text": 4}])
    (tmp_path / "words.jsonl").write_text("\nsnow\nrain\n")
    (tmp_path / "list.json").write_text('[{"body": "snow"}, {"id": 2}]')
    cases = {
        ("--input", good, "--column", "body"): "good.parquet: no column is called 'body'; there are: id, text",
        ("--input", good, "--column", "id"): "good.parquet: the column 'id' holds int64, not text",
        ("--input", good, "--input", tmp_path / "bad.parquet"): "bad.parquet cannot be read: ",
        ("--input", tmp_path / "bad.csv"): "bad.csv: no column is called 'text'; the table has id, body",
        ("--input", good, "--input", tmp_path / "other.jsonl"): (
            f"error: {tmp_path / 'other.jsonl'}: no column is called 'text'; line 1 has: id, body"
        ),
        ("--input", tmp_path / "list.json"): "list.json: no column is called 'text'; line 1 has: body",
        ("--input", tmp_path / "numbers.jsonl"): "the column 'text' holds no text; line 2 has a list there",
        ("--input", tmp_path / "words.jsonl"): "words.jsonl: no row is a JSON object; line 2: it is not JSON",
        ("--input", tmp_path / "folder"): f"--input {tmp_path / 'folder'}: this folder has no tables (.parquet, ",
        ("--input", tmp_path / "none*.parquet"): "--input ",
        ("--input", tmp_path / "notes.md"): "notes.md cannot be read as a table: its name ends in none of .parquet",
        ("--input", good, "--block-rows", 0): "--block-rows must be at least 1, not 0",
        ("--input", good, "--workers", 2): "--workers needs --cluster",
        ("--input", good, "--dimensions", 4096): "--dimensions must be between 1 and the model's 48",
    }
    for arguments, message in cases.items():
        assert message in refused(call, sentence_bundle, tmp_path, *arguments)
    assert not (tmp_path / "out").exists()


def test_folders_in_folders_may_be_deeper_than_python_calls(tmp_path, monkeypatch):
    folder = tmp_path.joinpath(*["a"] * 200)
    folder.mkdir(parents=True)
    for name in ("b.txt", "c.md", "_d.txt", ".e.txt"):
        (folder / name).write_text("snow")
    (tmp_path / "a" / "_marks").mkdir()
    (tmp_path / "a" / "_marks" / "f.txt").write_text("snow")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 120)
    try:
        assert find_files([str(tmp_path)], "text", tmp_path / "out") == [folder / "b.txt"]
    finally:
        sys.setrecursionlimit(limit)


def test_a_bundle_that_is_not_there(call, tmp_path):
    source = write_parquet(tmp_path / "a.parquet", ["snow"])
    assert "none does not exist; make one with" in refused(call, tmp_path / "none", tmp_path, "--input", source)


def test_a_run_without_any_result_fails(call, sentence_bundle, tmp_path):
    source, output = tmp_path / "a.csv", tmp_path / "out"
    source.write_text('id,text\n1,""\n2,\n')
    asked = ("batch", "embed", sentence_bundle, "--input", source, "--output", output)
    code, out, err = call(*asked)
    last = f"error: no row has results; the first is row 0 of {source}: it is blank"
    assert (code, out, err.splitlines()[-1]) == (1, "", last)
    assert [row for _, row, _ in errors_in(output)] == [0, 1]
    # It is the same when nothing is left to compute, and one row with results is enough.
    code, _, err = call(*asked)
    assert code == 1 and err.splitlines()[-1] == last
    source.write_text('id,text\n1,""\n2,snow\n')
    assert call(*asked[:-1], tmp_path / "other")[0] == 0


def test_inputs_without_rows(call, sentence_bundle, tmp_path):
    """A day without rows is no failure, and is said."""
    for number, (name, content) in enumerate((("a.csv", "id,text\n"), ("b.csv", ""), ("c.jsonl", ""), ("d.txt", ""))):
        (tmp_path / name).write_text(content)
        output = tmp_path / str(number)
        code, _, err = call("batch", "embed", sentence_bundle, "--input", tmp_path / name, "--output", output)
        assert code == 0
        assert err.splitlines() == ["note: the input has no rows", f"0 rows computed, 0 in {output / 'rows'}"]


def test_columns_that_exist_already(call, sentence_bundle, tmp_path):
    for name in ("embedding", "error", "input_row"):
        source = write_parquet(tmp_path / f"{name}.parquet", ["snow"], **{name: ["x"]})
        code, _, err = call("batch", "embed", sentence_bundle, "--input", source, "--output", tmp_path / name)
        assert code == 2
        assert f"already has a column called {name!r}: rename it" in one_line(err)
        assert not list((tmp_path / name / "rows").iterdir())


def test_a_file_that_breaks_off(call, sentence_bundle, tmp_path):
    """Its footer is whole, and a page before it is not."""
    source = write_parquet(tmp_path / "a.parquet", sentences(2000), group=1000)
    content = bytearray(source.read_bytes())
    metadata = parquet.read_metadata(source)
    column = metadata.row_group(1).column(1)
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    source.write_bytes(content)
    code, _, err = call("batch", "embed", sentence_bundle, "--input", source, "--output", tmp_path / "out")
    assert code == 2
    assert f"{source} cannot be read: " in err.splitlines()[-1]


def test_a_folder_of_another_run(call, sentence_bundle, tmp_path):
    source, output = write_parquet(tmp_path / "a.parquet", ["snow"]), tmp_path / "out"
    asked = ("--input", source)
    assert call("batch", "embed", sentence_bundle, *asked, "--output", output)[0] == 0
    for more, what in (
        (("--dimensions", 8), "another --dimensions"),
        (("--block-rows", 7), "another --block-rows"),
        (("--input", write_parquet(tmp_path / "b.parquet", ["rain"])), "another --input"),
    ):
        message = refused(call, sentence_bundle, tmp_path, *asked, *more)
        assert f"{output} has the results of a run with {what}" in message
    write_parquet(source, ["hail", "fog"])
    assert "a run with another --input" in refused(call, sentence_bundle, tmp_path, *asked)
    (output / "run.json").write_text("{")
    assert "run.json is damaged" in refused(call, sentence_bundle, tmp_path, *asked)
    (output / "run.json").unlink()
    assert f"{output} holds other files" in refused(call, sentence_bundle, tmp_path, *asked)


def test_two_runs_at_once(call, sentence_bundle, tmp_path):
    """The second may be of another input, whose rows would be taken for those of the first."""
    output = tmp_path / "out"
    (tmp_path / "texts.txt").write_text("\n".join(sentences(9)))
    arguments = ("batch", "embed", sentence_bundle, "--input", tmp_path / "texts.txt", "--output", output)
    with OutputFolder(output, {}).alone():
        code, out, err = call(*arguments)
        assert (code, out) == (2, "")
        assert "is being written by another process; choose another --output" in one_line(err)
        assert [path.name for path in output.iterdir()] == [".lock"]
    assert not output.exists()
    assert call(*arguments)[0] == 0
    assert sorted(path.name for path in output.iterdir()) == ["errors.parquet", "rows", "run.json"]


def test_without_pyarrow(call, sentence_bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    message = refused(call, sentence_bundle, tmp_path, "--input", tmp_path)
    assert message.startswith("error: tables need pyarrow: ")


def test_help(call):
    code, _, err = call("batch")
    assert code == 2 and "transcribe" in err and "errors.parquet" in err
    code, _, err = call("batch", "sing")
    assert code == 2 and "sing" in one_line(err)


def test_results_inside_the_folder_of_inputs(call, sentence_bundle, tmp_path):
    """They are no inputs of the run that continues."""
    texts, folder = [*sentences(5), None], tmp_path / "in"
    folder.mkdir()
    write_parquet(folder / "a.parquet", pa.array(texts))
    output = folder / "out"
    asked = ("batch", "embed", sentence_bundle, "--output", output, "--block-rows", 4, "--input")
    assert call(*asked, folder)[0] == 0
    block, other = sorted((output / "rows").iterdir())
    block.unlink()
    code, _, err = call(*asked, folder)
    assert code == 0 and "note: 2 rows were already there" in err and "4 rows computed, 6 in" in err
    assert sorted((output / "rows").iterdir()) == [block, other]
    assert "this folder has no tables" in one_line(call(*asked, output)[2])


def test_whose_column_is_in_the_way(call, sentence_bundle, tmp_path):
    write_parquet(tmp_path / "a.parquet", sentences(2))
    write_parquet(tmp_path / "b.parquet", sentences(2), error=["x", "y"])
    code, _, err = call(
        "batch", "embed", sentence_bundle, "--input", tmp_path / "?.parquet", "--output", tmp_path / "out"
    )
    assert code == 2
    wrong = "the table already has a column called 'error': rename it"
    assert err.splitlines()[-1] == f"error: {tmp_path / 'b.parquet'}: {wrong}"
