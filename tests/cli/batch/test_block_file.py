"""Blocks that were changed on the disk: every byte is noticed, and only their rows are computed again."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tests.helpers.batches import rows_in, sentences, write_parquet
from triform.cli.batch.block_file import is_whole, write_block
from triform.cli.main import run

RUN = {"bundle": "5d", "column": "1f"}


def table(**columns):
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([0.5, 1.5, -2.0, 4.0, 0.25, 8.0], pa.float32()), 2)
    return pa.table({"text": ["snow", None, "rain"], **columns, "embedding": vectors, "error": [None, "x", None]})


@pytest.fixture
def block(tmp_path):
    path = tmp_path / "a.parquet"
    write_block(path, table(), RUN)
    return path


def test_each_byte_counts(block):
    whole, chance = block.read_bytes(), random.Random(5)
    assert parquet.read_table(block).equals(table()) and is_whole(block, RUN)
    for place in range(len(whole)):
        block.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << chance.randrange(8)]) + whole[place + 1 :])
        assert not is_whole(block, RUN), place
    for size in range(len(whole)):
        block.write_bytes(whole[:size])
        assert not is_whole(block, RUN), size
    for more in (b"\0", whole, whole[-8:]):
        block.write_bytes(whole + more)
        assert not is_whole(block, RUN)
    block.write_bytes(whole)
    assert is_whole(block, RUN)


def test_it_belongs_to_its_place_and_run(block):
    """Its rows would be taken for those of another place, or of another model."""
    other = block.with_name("b.parquet")
    other.write_bytes(block.read_bytes())
    assert not is_whole(other, RUN)
    assert not is_whole(block, {**RUN, "bundle": "5e"})


def test_a_block_of_what_a_block_holds(block, tmp_path):
    """The results of one run are the input of another, with the first one's digest in what Arrow keeps of a schema."""
    first = parquet.read_table(block)
    second = tmp_path / "second.parquet"
    write_block(second, first, RUN)
    assert is_whole(second, RUN) and parquet.read_table(second).equals(first)
    # A text that looks like the digest's place; uncompressed statistics repeat it in the footer.
    mark = "triform_block_sha256\x18@" + "0" * 64
    write_block(second, table(note=[mark] * 3).replace_schema_metadata({"note": mark}), RUN)
    assert is_whole(second, RUN) and parquet.read_table(second).column("note").to_pylist() == [mark] * 3
    assert parquet.read_schema(second).metadata[b"note"] == mark.encode()


def test_without_a_digest(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(table(), path)
    assert not is_whole(path, RUN)


@pytest.fixture(scope="module")
def plain(sentence_bundle, tmp_path_factory):
    """A run: the arguments without the output, the folder, and its rows."""
    folder = tmp_path_factory.mktemp("plain")
    source = write_parquet(folder / "in.parquet", [*sentences(17), None, " "], group=6)
    asked = ("batch", "embed", str(sentence_bundle), "--input", str(source), "--block-rows", "5", "--output")
    assert run([*asked, str(folder / "out")]) == 0
    return asked, folder / "out", rows_in(folder / "out")


# From the start of the file, or from its end: marks, headers of pages, pages, the footer.
PLACES = (0, 3, 4, 9, 200, 700, -1, -5, -8, -60, -400)


@pytest.mark.parametrize("damage", [*PLACES, "empty", "cut", "folded", "of another"])
def test_a_run_that_goes_on(call, plain, damage):
    asked, output, rows = plain
    blocks = sorted((output / "rows").iterdir())
    victim, other = random.Random(str(damage)).sample(blocks, 2)
    whole = victim.read_bytes()
    changed = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "folded": whole[:-40] + b"\xff" * 32 + whole[-8:],
        "of another": other.read_bytes(),
    }
    if isinstance(damage, int):
        content = bytearray(whole)
        content[damage] ^= 4
        changed[damage] = bytes(content)
    victim.write_bytes(changed[damage])
    before = {path: path.stat().st_mtime_ns for path in blocks if path != victim}
    code, out, err = call(*asked, output)
    assert (code, out) == (0, "")
    assert f"note: {victim} was damaged, and computed again" in err.splitlines()
    assert rows_in(output) == rows
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted((output / "rows").iterdir()) == blocks


def test_several_blocks(call, plain):
    asked, output, rows = plain
    first, second, third, *_ = sorted((output / "rows").iterdir())
    first.write_bytes(b"PAR1")
    third.write_bytes(second.read_bytes())
    err = call(*asked, output)[2]
    assert f"note: {first} and 1 others were damaged, and computed again" in err.splitlines()
    assert rows_in(output) == rows
    assert "damaged" not in call(*asked, output)[2]


def test_a_block_that_is_no_file(call, plain):
    asked, output, rows = plain
    block = min((output / "rows").iterdir())
    block.unlink()
    block.mkdir()
    code, _, err = call(*asked, output)
    assert code == 2
    assert f"error: {block} cannot be read: Is a directory; delete it" in err.splitlines()[-1]
    block.rmdir()
    assert call(*asked, output)[0] == 0 and rows_in(output) == rows
