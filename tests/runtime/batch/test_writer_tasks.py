"""Answers as rows of a table: which columns there are, and what is in them, on a stand-in for the model."""

from __future__ import annotations

from types import SimpleNamespace

import pyarrow as pa
import pytest

from triform.runtime import opening
from triform.runtime.batch.writer_tasks import GenerateTask, TranscribeTask, seed_for
from triform.runtime.generation.options.beams import Beams
from triform.runtime.generation.options.generation import GenerationOptions
from triform.runtime.speech.options import TranscribeOptions

PLAIN = ["generated_text", "finish_reason", "generated_tokens"]


class Model:
    """Answers with the text in capitals, and then with its length; a search is what has beams."""

    def __init__(self):
        self.asked, self.counted = [], []

    def settle(self, options, *, beams):
        return SimpleNamespace(search=beams.num_beams)

    def generate_all(self, texts, options, *, beams, batch, **prompts):
        self.asked.append((list(texts), options.seed, batch, prompts))
        for text in texts:
            yield [
                SimpleNamespace(text=text.upper(), finish_reason="stop", token_ids=[1] * len(text), score=-0.5),
                SimpleNamespace(text=str(len(text)), finish_reason="length", token_ids=[], score=-1.5),
            ]

    def count_tokens(self, text, **prompts):
        self.counted.append((text, prompts))


@pytest.fixture
def opened(monkeypatch):
    model = Model()
    monkeypatch.setattr(opening, "load_decoder", lambda bundle, **loading: model)
    return lambda **task: (GenerateTask(**task).open("bundle", {}), model)


@pytest.mark.parametrize(
    ("beams", "more"),
    [
        (Beams(), []), (Beams(num_beams=2), ["score"]), (Beams(num_beams=2, num_return_sequences=1), ["score"]),
        (Beams(num_beams=2, num_return_sequences=2), ["score", "alternatives"]),
    ],
)  # fmt: skip
def test_columns(opened, beams, more):
    task, _ = opened(beams=beams)
    assert list(task.columns) == PLAIN + more
    assert task.columns["generated_tokens"] == pa.int64() and task.columns.get("score", pa.float64()) == pa.float64()


def test_rows(opened):
    task, model = opened(batch=3, prompts={"system": "Be brief."})
    assert list(task.work(iter(["ab", "c"]))) == [
        {
            "generated_text": text.upper(), "finish_reason": "stop", "generated_tokens": len(text), "score": -0.5,
            "alternatives": [{"generated_text": str(len(text)), "score": -1.5}],
        }
        for text in ("ab", "c")
    ]  # fmt: skip
    assert model.asked[-1] == (["ab", "c"], None, 3, {"system": "Be brief."})
    task.check("ab")
    assert model.counted == [("ab", {"system": "Be brief."})] and task.truncated() == 0


def test_a_seed_is_another_for_other_texts(opened):
    task, model = opened(options=GenerationOptions(seed=5, temperature=1.0))
    for texts in (["a"], ["b"], ["a"]):
        list(task.work(texts))
    seeds = [seed for texts, seed, *_ in model.asked if texts]
    assert seeds[0] == seeds[2] != seeds[1]
    assert seed_for(None, ["a"]) is None and 0 <= seed_for(0, []) < 2**64
    assert len({seed_for(seed, texts) for seed in (0, 1) for texts in (["a"], ["b"], ["a", "b"], ["ab"])}) == 8


def test_what_results_depend_on():
    task = GenerateTask(GenerationOptions(seed=5), Beams(num_beams=2), 3, {"system": "a"})
    settings = task.settings()
    assert (settings["seed"], settings["num_beams"], settings["system"]) == (5, 2, "a") and "batch" not in settings
    assert (GenerateTask.reads, GenerateTask.rows, GenerateTask().batch) == ("text", 64, 8)
    assert (TranscribeTask.reads, TranscribeTask.rows) == ("audio", 8)
    assert TranscribeTask(TranscribeOptions(language="de")).settings()["language"] == "de"
