"""Models as functions from tables to tables."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest

import triform
from tests.checkpoints.encoders import bert_folder
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.batch.writer_tasks import seed_for

TEXTS = ["The ferry left the harbor.", "Rain.", "Two boats, three nets and not a single fish!"]


def labels(*names):
    return {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle of a class of transformers, with these labels."""

    def make(kind, *names):
        folder = tmp_path_factory.mktemp(kind)
        export(
            str(bert_folder(folder / "source", kind, **labels(*names))),
            folder / "bundle",
            ExportOptions(quantize="none"),
        )
        return folder / "bundle"

    return make


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
)
def test_columns_of_text_of_every_kind(sentence_bundle, kind):
    predictor = triform.Predictor(sentence_bundle, triform.EmbedTask(), column="body", threads=1)
    table = pa.table({"body": pa.chunked_array([pa.array(TEXTS[:1]).cast(kind), pa.array(TEXTS[1:]).cast(kind)])})
    result = predictor(table)
    assert result.column_names == ["body", "embedding", "error"]
    assert result.schema.field("embedding").type == pa.list_(pa.float32(), 48)
    expected = triform.load_encoder(sentence_bundle).embed(TEXTS)
    np.testing.assert_allclose(result.column("embedding").to_pylist(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [pa.string(), pa.null()])
def test_a_table_without_texts(sentence_bundle, kind):
    predictor = triform.Predictor(sentence_bundle, triform.EmbedTask())
    assert len(predictor(pa.table({"text": pa.array([], kind)}))) == 0
    result = predictor(pa.table({"text": pa.array([None, None], kind)}))
    assert result.column("error").to_pylist() == ["it is null"] * 2
    assert result.column("embedding").null_count == 2


def test_labels(made):
    bundle = made("BertForSequenceClassification", "CONTRADICTION", "NEUTRAL", "ENTAILMENT")
    model, table = triform.load_encoder(bundle), pa.table({"text": TEXTS})
    for task, expected in (
        (triform.ClassifyTask(top_k=2), [found[:2] for found in model.classify(TEXTS)]),
        (triform.ClassifyTask(3, ("sea", "land")), model.zero_shot(TEXTS, ["sea", "land"])),
    ):
        rows = triform.Predictor(bundle, task)(table).column("labels").to_pylist()
        assert [[(one["label"], pytest.approx(one["score"], abs=1e-6)) for one in row] for row in rows] == expected
    with pytest.raises(triform.InputError, match="template"):
        triform.Predictor(bundle, triform.ClassifyTask(1, ("sea",), "It is about."))


def test_spans(made):
    bundle = made("BertForTokenClassification", "O", "B-PER", "I-PER")
    rows = triform.Predictor(bundle, triform.TagTask("first"))(pa.table({"text": TEXTS})).column("tags").to_pylist()
    expected = triform.load_encoder(bundle).tag(TEXTS, aggregation="first")
    assert [[tuple(one.values())[2:] for one in row] for row in rows] == [
        [(one.start, one.end, one.text) for one in found] for found in expected
    ]
    assert any(rows)


def test_a_search(float_bundle):
    beams, options = triform.Beams(num_beams=3, num_return_sequences=2), triform.GenerationOptions(max_new_tokens=4)
    predictor = triform.Predictor(float_bundle, triform.GenerateTask(options, beams))
    (row,) = predictor(pa.table({"text": TEXTS[:1]})).to_pylist()
    (answers,) = triform.load_decoder(float_bundle).generate_all(TEXTS[:1], options, beams=beams)
    found = [
        (row["generated_text"], row["score"]),
        *((one["generated_text"], one["score"]) for one in row["alternatives"]),
    ]
    assert found == [(answer.text, pytest.approx(answer.score)) for answer in answers]


def test_a_seed_gives_the_same_answers_again_and_others_to_other_texts(float_bundle):
    task = triform.GenerateTask(triform.GenerationOptions(max_new_tokens=8, temperature=1.5, seed=7))
    predictor = triform.Predictor(float_bundle, task)
    table = pa.table({"text": ["Snow", "Snow"]})
    first, again = predictor(table).to_pylist(), predictor(table).to_pylist()
    assert first == again and first[0]["generated_text"] != first[1]["generated_text"]
    assert seed_for(7, ["a"]) != seed_for(7, ["b"]) != seed_for(8, ["b"])
    assert seed_for(None, ["a"]) is None


def test_columns_that_do_not_fit(sentence_bundle):
    predictor = triform.Predictor(sentence_bundle, triform.EmbedTask())
    for table, message in (
        (pa.table({"body": TEXTS}), "no column is called 'text'; there are: body"),
        (pa.table({"text": [1]}), "the column 'text' holds int64, not text"),
        (pa.table([["a"], ["b"]], names=["text", "text"]), "2 columns are called 'text'"),
        (pa.table({"text": TEXTS, "error": TEXTS}), "already has a column called 'error'"),
    ):
        with pytest.raises(triform.InputError, match=message):
            predictor(table)


def test_a_bundle_for_another_task(float_bundle):
    with pytest.raises(triform.UnsupportedError):
        triform.Predictor(float_bundle, triform.EmbedTask())


@pytest.mark.parametrize(
    "task",
    [
        triform.EmbedTask(dimensions=3),
        triform.ClassifyTask(),
        triform.TagTask(),
        triform.GenerateTask(),
        triform.TranscribeTask(),
    ],
)
def test_tasks_go_to_other_processes(task):
    assert pickle.loads(pickle.dumps(task)) == task


def test_options_out_of_range():
    with pytest.raises(triform.InputError, match="`top_k` must be at least 1"):
        triform.ClassifyTask(top_k=0)
    with pytest.raises(triform.InputError, match="`hypothesis_template` needs `labels`"):
        triform.ClassifyTask(hypothesis_template="{}")
