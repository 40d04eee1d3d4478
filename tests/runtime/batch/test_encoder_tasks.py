"""Vectors, labels and spans as rows of a table, on stand-ins for models: columns, defaults, refusals."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from triform.runtime import opening
from triform.runtime.batch.encoder_tasks import ClassifyTask, EmbedTask, TagTask
from triform.runtime.encoder import classification, tagging, zero_shot
from triform.runtime.encoder.vectors import embedding
from triform.runtime.errors import InputError


class Model:
    def __init__(self):
        self.needed = []

    def require(self, purpose, *tasks):
        self.needed.append((purpose, *tasks))

    def require_texts_alone(self, purpose):
        self.needed.append(purpose)

    def reader(self):
        return SimpleNamespace(truncated=3)


@pytest.fixture
def model(monkeypatch):
    model, loaded = Model(), []

    def load(bundle, *, strict=False, **loading):
        loaded.append(strict)
        return model

    monkeypatch.setattr(opening, "load_encoder", load)
    model.loaded = loaded
    return model


def scored(labels):
    """Scores that fall from the first label on."""
    return [(label, 1.0 / place) for place, label in enumerate(labels, 1)]


def test_vectors(model, monkeypatch):
    asked = []

    def embed(model, texts, *, prompt, dimensions):
        asked.append((prompt, dimensions))
        return (np.full(4, len(text), np.float32) for text in texts)

    monkeypatch.setattr(embedding, "embed", embed)
    monkeypatch.setattr(embedding, "embedding_info", lambda model: "info")
    monkeypatch.setattr(embedding, "resolve_prompt", lambda info, prompt, name: f"{prompt}+{name}")
    monkeypatch.setattr(embedding, "width_of", lambda info, dimensions: dimensions or 4)
    task = EmbedTask(prompt="p", prompt_name="n", strict=True).open("bundle", {})
    assert task.columns == {"embedding": pa.list_(pa.float32(), 4)} and model.loaded == [True]
    assert [row["embedding"].tolist() for row in task.work(["a", "bb"])] == [[1] * 4, [2] * 4]
    assert asked == [("p+n", None)] and task.truncated() == 3 and model.needed == ["a table"]
    assert EmbedTask(output_dtype="int8", dimensions=2).open("bundle", {}).columns == {
        "embedding": pa.list_(pa.int8(), 2)
    }
    with pytest.raises(InputError, match="int4"):
        EmbedTask(output_dtype="int4").open("bundle", {})


@pytest.mark.parametrize(("top_k", "kept"), [(1, ["x"]), (2, ["x", "y"]), (9, ["x", "y", "z"])])
def test_labels(model, monkeypatch, top_k, kept):
    monkeypatch.setattr(classification, "classify", lambda model, texts: (scored("xyz") for _ in texts))
    task = ClassifyTask(top_k=top_k).open("bundle", {})
    ((row,), columns) = task.work(["a"]), task.columns
    assert row == {"labels": [{"label": label, "score": score} for label, score in scored(kept)]}
    assert list(columns) == ["labels"] and model.needed == [("classify", classification.TASK), "a table"]
    assert task.truncated() == 3 and model.loaded == [False]


def test_labels_of_ones_own(model, monkeypatch):
    asked = []

    def zero(model, texts, labels, *, template, multi_label):
        asked.append((template, multi_label))
        return (scored(labels) for _ in texts)

    monkeypatch.setattr(zero_shot, "zero_shot", zero)
    task = ClassifyTask(top_k=2, labels=("u", "v"), multi_label=True, hypothesis_template="It is {}.").open(
        "bundle", {}
    )
    assert [row["labels"][1]["label"] for row in task.work(["a", "b"])] == ["v", "v"]
    ClassifyTask(labels=("u",)).open("bundle", {})
    # Options are tried when the model is loaded.
    assert asked == [("It is {}.", True)] * 2 + [(zero_shot.HYPOTHESIS_TEMPLATE, False)]


def test_spans(model, monkeypatch):
    asked = []

    def tag(model, texts, *, aggregation, stride):
        asked.append((list(texts), aggregation, stride))
        span = SimpleNamespace(label="L", score=0.5, start=1, end=3, text="bc", page=7)
        return ([span] for _ in asked[-1][0])

    monkeypatch.setattr(tagging, "tag", tag)
    task = TagTask(aggregation="max", stride=5).open("bundle", {})
    assert asked == [([], "max", 5)]
    assert list(task.work(["abc"])) == [{"tags": [{"label": "L", "score": 0.5, "start": 1, "end": 3, "text": "bc"}]}]
    (field,) = task.columns.values()
    assert [item.name for item in field.value_type] == ["label", "score", "start", "end", "text"]


@pytest.mark.parametrize("top_k", [0, -1])
def test_at_least_one_label(top_k):
    with pytest.raises(InputError, match=rf"^`top_k` must be at least 1, not {top_k}$"):
        ClassifyTask(top_k=top_k)


@pytest.mark.parametrize("values", [{"multi_label": True}, {"hypothesis_template": "{}"}])
def test_options_for_labels_of_ones_own(values):
    (name,) = values
    with pytest.raises(InputError, match=rf"^`{name}` needs `labels`"):
        ClassifyTask(**values)
    assert ClassifyTask(labels=("a",), **values).labels == ("a",)


def test_defaults_and_settings():
    assert EmbedTask().settings() == {
        "prompt": None, "prompt_name": None, "dimensions": None, "output_dtype": "float32", "strict": False,
    }  # fmt: skip
    assert ClassifyTask().settings() == {
        "top_k": 1, "labels": (), "hypothesis_template": None, "multi_label": False, "strict": False,
    }  # fmt: skip
    assert TagTask().settings() == {"aggregation": "simple", "stride": None}
    assert [(task.reads, task.rows) for task in (EmbedTask, ClassifyTask, TagTask)] == [
        ("text", 4096), ("text", 4096), ("text", 1024),
    ]  # fmt: skip
