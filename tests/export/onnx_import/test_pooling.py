"""The pooling that is added to a graph, against numpy; and the graphs of a folder, which are found by their names."""

from __future__ import annotations

import json

import numpy as np
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper

from triform.export.checkpoint.sentence.sentence_transformers import SentenceModules
from triform.export.onnx_import.graph import task_of
from triform.export.onnx_import.layout import find_graph
from triform.export.onnx_import.pooling import add_pooling
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph
from triform.runtime.errors import ExportError, InputError, UnsupportedError

WIDTH = 4


def graph_of(*outputs):
    """A graph that gives what it takes, and the mask."""
    inputs = [
        helper.make_tensor_value_info("states", TensorProto.FLOAT, ["batch", "sequence", WIDTH]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "sequence"]),
    ]
    nodes = [helper.make_node("Identity", ["states"], [name]) for name in outputs]
    given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", "sequence", WIDTH]) for name in outputs]
    graph = helper.make_graph(nodes, "g", inputs, given)
    return ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8))


def pooled(folder, states, mask, **modules):
    model = graph_of("last_hidden_state")
    add_pooling(model.graph, SentenceModules(**modules), WIDTH)
    assert list(model.graph.outputs[-1].shape) == ["batch", WIDTH]
    write_graph(model, folder / "g.onnx")
    return EncoderRunner(folder / "g.onnx", 1).run({"states": states, "attention_mask": mask})["sentence_embedding"]


STATES = np.random.default_rng(0).normal(size=(3, 5, WIDTH)).astype(np.float32)
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]])


def test_the_mean_of_the_tokens_that_count(tmp_path):
    found = pooled(tmp_path, STATES, MASK)
    np.testing.assert_allclose(found[0], STATES[0].mean(0), atol=1e-6)
    np.testing.assert_allclose(found[1], STATES[1, :2].mean(0), atol=1e-6)
    # Nothing divided by sentence-transformers' least count.
    assert found[2].tolist() == [0] * WIDTH


def test_the_first_token(tmp_path):
    np.testing.assert_array_equal(pooled(tmp_path, STATES, MASK, pooling=("cls",)), STATES[:, 0])


def test_vectors_of_length_one(tmp_path):
    found = pooled(tmp_path, STATES, MASK, normalize=True)
    mean = STATES[1, :2].mean(0)
    np.testing.assert_allclose(found[1], mean / np.linalg.norm(mean), atol=1e-6)
    assert found[2].tolist() == [0] * WIDTH


@pytest.mark.parametrize(
    ("modules", "said"),
    [
        ({"pooling": ("mean", "cls")}, r"^the pooling \(mean, cls\) cannot be added"),
        ({"pooling": ("max",)}, r"^the pooling \(max\)"),
        ({"pooling": ()}, r"^the pooling \(\)"),
        ({"dense": (torch.nn.Linear(4, 4),)}, "^dense layers "),
        ({"dimensions": 2}, "^shortened vectors "),
        ({"include_prompt": False}, "^a pooling that leaves out prompts cannot be added"),
    ],
)
def test_what_cannot_be_added(modules, said):
    with pytest.raises(UnsupportedError, match=said):
        add_pooling(graph_of("last_hidden_state").graph, SentenceModules(**modules), WIDTH)


@pytest.mark.parametrize(
    ("outputs", "architectures", "task"),
    [
        (["start_logits", "end_logits"], [], "question-answering"),
        (["start_logits", "last_hidden_state"], [], "question-answering"),
        (["last_hidden_state"], [], "feature-extraction"),
        (["token_embeddings"], [], "feature-extraction"),
        (["sentence_embedding", "logits"], [], "feature-extraction"),
        (["logits"], ["BertForSequenceClassification"], "text-classification"),
        (["logits"], ["Other", "BertForTokenClassification"], "token-classification"),
        (["logits"], ["BertForMaskedLM"], "fill-mask"),
        (["logits"], ["BertModel"], None),
        (["logits"], [], None),
        (["scores"], ["BertForMaskedLM"], None),
    ],
)
def test_the_task_of_a_graph(outputs, architectures, task):
    assert task_of(graph_of(*outputs).graph, architectures) == task


def folder_with(folder, *names, genai=None):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    if genai is not None:
        (folder / "genai_config.json").write_text(json.dumps(genai))
    return folder


@pytest.mark.parametrize(
    ("names", "genai", "found"),
    [
        (["other.onnx"], None, "other.onnx"),
        (["onnx/other.onnx"], None, "onnx/other.onnx"),
        (["model.onnx", "model_int8.onnx"], None, "model.onnx"),
        (["onnx/model.onnx", "onnx/decoder_model_merged.onnx"], None, "onnx/model.onnx"),
        (["a.onnx", "onnx/decoder_model_merged.onnx"], None, "onnx/decoder_model_merged.onnx"),
        # The only one of a name counts, so that of two model.onnx the other name does.
        (["model.onnx", "onnx/model.onnx", "decoder_model_merged.onnx"], None, "decoder_model_merged.onnx"),
        (["model.onnx", "b.onnx"], {"model": {"decoder": {"filename": "b.onnx"}}}, "b.onnx"),
        (["model.onnx", "b.onnx"], {"model": {"decoder": {"filename": 7}}}, "model.onnx"),
        (["model.onnx", "b.onnx"], {"model": "b.onnx"}, "model.onnx"),
    ],
)
def test_the_graph_of_a_folder(names, genai, found, tmp_path):
    assert find_graph(folder_with(tmp_path, *names, genai=genai), None) == tmp_path / found


def test_a_graph_that_is_named(tmp_path):
    folder = folder_with(tmp_path, "a.onnx", "onnx/b.onnx")
    assert find_graph(folder, "onnx/b.onnx") == folder / "onnx/b.onnx"
    with pytest.raises(InputError, match=r"c\.onnx is not in "):
        find_graph(folder, "c.onnx")
    with pytest.raises(InputError, match=r"has several graphs: choose one with .*: a\.onnx, onnx/b\.onnx$"):
        find_graph(folder, None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExportError, match=r"has no \.onnx file, neither in it nor in its folder onnx$"):
        find_graph(tmp_path / "empty", None)
    with pytest.raises(ExportError, match="is not a folder"):
        find_graph(folder / "a.onnx", None)
