"""Tables of texts that an encoder-decoder writes: what becomes of answers to pieces. The model here shouts."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

import triform
from tests.runtime.text.test_documents import splitter
from triform.runtime.batch import text_tasks
from triform.runtime.batch.text_tasks import RewriteTask, SummarizeTask, TranslateTask, Writing
from triform.runtime.encoder_decoder.ask import Ask
from triform.runtime.errors import InputError
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions

TEXT = "One two three. Four five?\n\nSix seven."


class Shouter:
    """Answers with the first three words in capitals; an answer to more than three is cut off by its limit."""

    info = SimpleNamespace(decoder_start=1)
    text = SimpleNamespace(truncated=0)

    def __init__(self):
        self.batches = []

    def settle(self, options, *, ask, beams):
        # The most words of a summary.
        return SimpleNamespace(row=lambda ids: SimpleNamespace(limit=4))

    def generate_all(self, pieces, options, *, ask, beams, batch):
        self.batches.append(batch)
        for piece in pieces:
            words = piece.split()
            yield [
                SimpleNamespace(text=" ".join(words[:3]).upper(), finish_reason="stop" if len(words) <= 3 else "length")
            ]


@pytest.fixture
def rows(monkeypatch):
    """What a task makes of texts, with pieces of at most three words, or `limit`."""

    def work(task, texts, limit=4):
        model = Shouter()
        monkeypatch.setattr(Writing, "load", lambda self, bundle, loading: model)
        monkeypatch.setattr(text_tasks, "splitter_for", lambda model, ask, strict: splitter(limit, strict=strict))
        found = list(task(Writing(ask=Ask(prefix=""), batch=5)).open("bundle", None).work(texts))
        assert set(model.batches) <= {5}
        return found

    return work


def test_lines_are_translated_in_pieces(rows):
    assert rows(TranslateTask, [TEXT, "", "Ten."]) == [
        {"translation_text": "ONE TWO THREE. FOUR FIVE?\n\nSIX SEVEN.", "finish_reason": "stop"},
        {"translation_text": "", "finish_reason": "stop"},
        {"translation_text": "TEN.", "finish_reason": "stop"},
    ]
    # The second piece has four words.
    assert rows(TranslateTask, ["One two. Three four five six.", "Seven."], limit=5) == [
        {"translation_text": "ONE TWO. THREE FOUR FIVE", "finish_reason": "length"},
        {"translation_text": "SEVEN.", "finish_reason": "stop"},
    ]


def test_texts_are_rewritten_whole(rows):
    assert rows(RewriteTask, [TEXT, "Ten."]) == [
        {"generated_text": "ONE TWO THREE.", "finish_reason": "length"},
        {"generated_text": "TEN.", "finish_reason": "stop"},
    ]


def test_long_texts_are_summed_up_window_by_window(rows):
    long = "One two three. Four five six. Seven eight nine."
    # Three windows, whose summaries of nine words are more than four, and no shorter than the text.
    assert rows(SummarizeTask, [long, "Ten eleven twelve thirteen."], limit=5) == [
        {"summary_text": "ONE TWO THREE. FOUR FIVE SIX. SEVEN EIGHT NINE.", "finish_reason": "stop"},
        {"summary_text": "TEN ELEVEN TWELVE", "finish_reason": "length"},
    ]


def test_tables(rows, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    monkeypatch.setattr(Writing, "load", lambda self, bundle, loading: Shouter())
    predictor = triform.Predictor("bundle", RewriteTask(Writing(ask=Ask(prefix=""))))
    table = predictor(pa.table({"text": ["Ten.", None, "One two three four."]}))
    assert table.column("generated_text").to_pylist() == ["TEN.", None, "ONE TWO THREE"]
    assert table.column("finish_reason").to_pylist() == ["stop", None, "length"]


@pytest.mark.parametrize("count", [None, 1])
def test_a_row_keeps_one_answer(count):
    assert Writing(beams=Beams(num_beams=4, num_return_sequences=count)).batch == 8
    with pytest.raises(InputError, match=r"^`num_return_sequences` is not for tables: each row keeps one answer$"):
        Writing(beams=Beams(num_beams=4, num_return_sequences=2))


def test_what_results_depend_on():
    writing = Writing(ask=Ask(target_lang="de"), options=GenerationOptions(seed=3), beams=Beams(num_beams=2), batch=3)
    settings = RewriteTask(writing).settings()
    assert (settings["target_lang"], settings["seed"], settings["num_beams"], settings["strict"]) == ("de", 3, 2, False)
    # Not the size of a batch.
    assert settings == RewriteTask(replace(writing, batch=9)).settings() and "batch" not in settings
    assert RewriteTask(replace(writing, strict=True)).settings()["strict"] is True
    assert (RewriteTask.reads, RewriteTask.rows) == ("text", 64)
