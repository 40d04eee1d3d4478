"""Files of texts as people have them: every format, encoding and kind of bad line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from triform.cli.inputs.records import Records
from triform.runtime.errors import InputError


def records(path, content, **given):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Records([], path, given.pop("field", None), given.pop("skip_errors", False), **given)


def texts(found):
    read = [record.text for record in found]
    found.check()
    return read


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ends", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["t.txt", "t.jsonl", "T.JSONL", "t.ndjson", "t.json", "t.csv", "t.TSV"])
def test_formats_and_encodings(tmp_path, name, ends, mark):
    suffix = name.lower().partition(".")[2]
    lines = {
        "txt": ["ząb", "b c"],
        "csv": ["text,n", "ząb,1", "b c,2"],
        "tsv": ["n\ttext", "1\tząb", "2\tb c"],
    }.get(suffix, ['{"text": "ząb"}', '{"n": 2, "text": "b c"}'])
    found = records(tmp_path / name, (ends.join(lines) + ends).encode(mark))
    assert texts(found) == ["ząb", "b c"]
    assert found.is_json == (suffix != "txt")
    assert (found.blanks, found.skipped, found.plain_json) == (0, 0, None)


@pytest.mark.parametrize("content", ['["a", "b"]', '[{"text": "a"},\n {"text": "b"}]', ' \n[\n"a",\n"b"\n]\n'])
def test_a_json_list_over_any_number_of_lines(tmp_path, content):
    assert texts(records(tmp_path / "t.json", content)) == ["a", "b"]
    assert texts(records(tmp_path / "t.jsonl", content)) == ["a", "b"]


def test_a_json_list_with_a_number_that_python_does_not_read(tmp_path):
    found = records(tmp_path / "t.json", f'["a", {5000 * "9"}]')
    assert list(found) == []
    assert "a number in it has too many digits" in str(found.failure)


def test_cells_with_commas_quotes_and_line_breaks(tmp_path):
    rows = [["id", "body"], ["1", 'He said "no", twice'], ["2", "two\nlines, one cell"], ["3", "x" * 200_000]]
    file = io.StringIO(newline="")
    csv.writer(file).writerows(rows)
    found = list(records(tmp_path / "t.csv", file.getvalue(), field="body"))
    assert [record.text for record in found] == [row[1] for row in rows[1:]]
    assert [record.value for record in found] == [{"id": row[0], "body": row[1]} for row in rows[1:]]
    # The line on which a row begins.
    assert [record.number for record in found] == [2, 3, 5]


@pytest.mark.parametrize(
    ("content", "field", "says"),
    [
        ("a,b\n1,2\n", "c", "no column is called 'c'; the table has a, b"),
        ("a,b\n1,2\n", None, "--field must name a column; the table has a, b"),
        ("a,a\n1,2\n", "a", "two columns of the table have the same name: a, a"),
    ],
)
def test_a_table_without_the_column(tmp_path, content, field, says):
    with pytest.raises(InputError, match=says):
        list(records(tmp_path / "t.csv", content, field=field))


@pytest.mark.parametrize("name", ["t.txt", "t.jsonl", "t.csv"])
def test_blank_lines_are_left_out_and_counted(tmp_path, name):
    head, line = {"t.txt": ("", "{}"), "t.jsonl": ("", '{{"text": "{}"}}'), "t.csv": ("text\n", "{}")}[name]
    content = head + "\n".join([line.format("a"), "", " \t", line.format("b"), ""]) + "\n"
    if name == "t.csv":
        content = content.replace(" \t", "")
    found = records(tmp_path / name, content)
    assert texts(found) == ["a", "b"]
    assert found.blanks == 3
    numbers = [record.number for record in records(tmp_path / name, content)]
    assert numbers == ([2, 5] if name == "t.csv" else [1, 4])


def test_an_empty_text_in_an_object_counts_as_blank(tmp_path):
    found = records(tmp_path / "t.jsonl", '{"text": ""}\n{"text": "a"}\n{"text": " "}\n')
    assert (texts(found), found.blanks) == (["a"], 2)


def test_blank_lines_can_be_kept(tmp_path):
    found = records(tmp_path / "t.txt", "a\n\nb\n", blank_lines="keep")
    assert texts(found) == ["a", "", "b"]


BAD = {
    "not utf-8": ("t.txt", b"caf\xe9\n", "it is not UTF-8 text"),
    "utf-16 without a mark": ("t.txt", "bad\n".encode("utf-16-be"), "UTF-16 without a byte-order mark"),
    "not json": ("t.jsonl", b"{oops\n", "it is not JSON"),
    "deep json": ("t.jsonl", b"[" * 100_000 + b"\n", "it is not JSON"),
    "a number": ("t.jsonl", b"3\n", "it is not an object with a text called 'text'"),
    "no such field": ("t.ndjson", b'{"body": "a"}\n', "it is not an object with a text called 'text'"),
    "half a surrogate": ("t.jsonl", b'{"text": "\\ud800"}\n', "its 'text' is not valid Unicode"),
    "too few cells": ("t.csv", b"a,b,c\n", "it has 3 cells, and the table 1 columns"),
    "a quote that does not end": ("t.csv", b'"a"b\n', "it is not a row of a table"),
}
GOOD = {"t.txt": (b"", b"%s\n"), "t.jsonl": (b"", b'{"text": "%s"}\n'), "t.ndjson": (b"", b'{"text": "%s"}\n')}
GOOD |= {"t.csv": (b"text\n", b"%s\n")}


@pytest.mark.parametrize(("name", "bad", "says"), BAD.values(), ids=BAD)
def test_a_bad_line_comes_after_what_is_before_it(tmp_path, name, bad, says):
    head, good = GOOD[name]
    content = head + good % b"a" + bad + good % b"b"
    found = records(tmp_path / name, content)
    read = [record.text for record in found]
    assert read == ["a"]
    with pytest.raises(InputError, match=f"line {2 + bool(head)} of .*{name}: .*{says}.*; --skip-errors goes on"):
        found.check()
    lenient = records(tmp_path / name, content, skip_errors=True)
    assert texts(lenient) == ["a", "b"]
    assert (lenient.skipped, says in lenient.first_skipped) == (1, True)


def test_what_the_work_refuses_is_a_bad_line_too(tmp_path):
    def work(record):
        if record.text == "b":
            raise InputError("it is too long")
        return len(record.text)

    strict = records(tmp_path / "t.txt", "a\nb\nc\n")
    assert [result for _, result in strict.use(strict, work)] == [1]
    with pytest.raises(InputError, match=r"line 2 of .*: it is too long"):
        strict.check()
    lenient = records(tmp_path / "t.txt", "a\nb\nc\n", skip_errors=True)
    assert [record.text for record, _ in lenient.use(lenient, work)] == ["a", "c"]
    assert lenient.skipped == 1
    lenient.check()


def test_where_no_line_can_be_used_the_run_fails(tmp_path):
    """Lines that cannot be read, and lines that the work refuses; blank lines are neither."""

    def work(record):
        raise InputError("it is too long")

    unread = records(tmp_path / "t.jsonl", '{"body": "a"}\n\n{"body": "b"}\n', field="text", skip_errors=True)
    assert list(unread) == []
    with pytest.raises(InputError, match=r"^none of the 2 inputs can be used; the first is line 1 of .*'text'$"):
        unread.check()
    refused = records(tmp_path / "t.txt", "a\n\nb\nc\n", skip_errors=True)
    assert list(refused.use(refused, work)) == []
    with pytest.raises(InputError, match=r"^none of the 3 inputs can be used; the first is line 1 of .*too long$"):
        refused.check()
    empty = records(tmp_path / "t.txt", "\n", skip_errors=True)
    assert texts(empty) == []
    empty.check()


def test_json_in_a_text_file_is_noticed(tmp_path):
    found = records(tmp_path / "t.txt", 'a\n{"text": "b"}\n{broken\n')
    assert texts(found) == ["a", '{"text": "b"}', "{broken"]
    assert found.plain_json == 2


def test_a_line_of_ten_megabytes(tmp_path):
    long = "word " * 2_000_000
    assert texts(records(tmp_path / "t.txt", f"{long}\na\n")) == [long, "a"]
    assert texts(records(tmp_path / "t.jsonl", json.dumps({"text": long}) + "\n")) == [long]


def test_a_nul_in_a_text_is_part_of_it(tmp_path):
    assert texts(records(tmp_path / "t.txt", b"a long enough line with one \0 in it\n")) == [
        "a long enough line with one \0 in it"
    ]


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a file"):
        Records([], Path(tmp_path), None, False)
