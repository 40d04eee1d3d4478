"""A sample of the encoders and encoder-decoders that docs/models.md says work; and how that page is written."""

from __future__ import annotations

import pytest

from tests.coverage.attempt import attempt
from tests.coverage.page import page, working
from tests.coverage.records import GIVEN_PAGES, WORKS, Record, append, read
from tests.coverage.sample import OTHERS, sampled_others

SAMPLE = sampled_others()


@pytest.mark.parametrize(("form", "name"), SAMPLE)
def test_a_type_gives_what_transformers_gives(form, name, tmp_path):
    record = attempt(form, name, tmp_path)
    assert record.result == WORKS, record.reason


def test_the_sample_is_whole():
    assert len(set(SAMPLE)) == OTHERS


RECORDS = [
    Record("decoder", "llama", WORKS, task="text-generation", operators=["GroupQueryAttention"], seconds=4.0),
    Record("decoder", "llama+wide", "differs", "its tokens are [1], those of transformers [2]"),
    Record("decoder", "mamba", "refused", "mamba cannot be exported: it has a | state"),
    Record("encoder", "bert", WORKS, "compared by the export only", task="token-classification"),
    Record("encoder", "bros", "not tried", "You have to specify bbox"),
    Record("encoder", "layoutlm", WORKS, GIVEN_PAGES, task="feature-extraction"),
    Record("encoder", "odd", "internal error", "KeyError: 1"),
]


def test_the_page_counts_and_lists_types():
    lines = page(RECORDS, "transformers 5").splitlines()
    assert "| Decoders | 2 | 2 | 1 | 1 | 0 | 0 |" in lines
    assert "| Encoders of texts | 4 | 3 | 2 | 0 | 1 | 1 |" in lines
    assert "| `llama` | works | generate, chat, score | GroupQueryAttention | |" in lines
    assert "| `mamba` | refused | | | it has a \\| state |" in lines
    assert "| `bert` | works | tag | | compared by the export only |" in lines
    assert "| `layoutlm` | works | embed | | given pages |" in lines


def test_what_works_is_read_from_the_page():
    assert working(page(RECORDS, "transformers 5")) == [
        ("decoder", "llama"),
        ("encoder", "bert"),
        ("encoder", "layoutlm"),
    ]


def test_a_later_result_takes_the_place_of_an_earlier_one(tmp_path):
    for record in RECORDS:
        append(tmp_path / "results.jsonl", record)
    later = Record("decoder", "mamba", WORKS, task="text-generation")
    append(tmp_path / "results.jsonl", later)
    assert read(tmp_path / "results.jsonl") == {(item.form, item.name): item for item in [*RECORDS, later]}


@pytest.mark.parametrize(
    ("form", "name", "result"),
    [("image-text", "llava", "refused"), ("decoder", "xlnet", "refused"), ("encoder", "markuplm", "refused")],
)
def test_what_does_not_work_has_a_reason(form, name, result, tmp_path):
    record = attempt(form, name, tmp_path)
    assert (record.result, bool(record.reason)) == (result, True)
