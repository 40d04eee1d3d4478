"""Inputs and outputs of `triform batch`."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as parquet

WORDS = ("harbor", "lamp", "keeper", "boat", "storm", "letter", "snow")


def sentences(count):
    """Texts of different lengths, none of them twice."""
    return [f"{' '.join(WORDS[: 1 + number % len(WORDS)])} {number}" for number in range(count)]


def write_parquet(path, texts, *, group=None, **columns):
    """Texts, their numbers, and further columns."""
    table = pa.table({"id": pa.array(range(len(texts)), pa.int64()), "text": texts, **columns})
    parquet.write_table(table, path, row_group_size=group)
    return path


def write_json_lines(path, values):
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def rows_in(folder):
    """All rows of an output folder, in the order of their inputs."""
    return [row for file in sorted((folder / "rows").iterdir()) for row in parquet.read_table(file).to_pylist()]


def errors_in(folder):
    """For each row without results, its file's name, its number and the reason."""
    rows = parquet.read_table(folder / "errors.parquet").to_pylist()
    return [(row["input_file"].rpartition("/")[2], row["input_row"], row["error"]) for row in rows]
