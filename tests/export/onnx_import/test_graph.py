"""What an imported encoder's graph takes and gives after it was adapted, by graphs of a few operators and numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from triform.export.onnx_import.graph import adapt, append, take_as
from triform.export.runners import EncoderRunner
from triform.export.write import write_graph
from triform.runtime.errors import ExportError, UnsupportedError

PATH = Path("model.onnx")
IDS, MASK = np.array([[1, 2, 3], [4, 5, 0]]), np.array([[1, 1, 1], [1, 1, 0]])
TAKES = "int64[B,S] input_ids, int64[B,S] attention_mask"
# Of each token its id and the mask, as floats; and of each text the sums of these.
BODY = """f = Cast <to = 1> (input_ids) m = Cast <to = 1> (attention_mask) one = Constant <value_ints = [-1]> ()
    a = Unsqueeze (f, one) b = Unsqueeze (m, one) tokens = Concat <axis = -1> (a, b)
    axes = Constant <value_ints = [1]> () sums = ReduceSum <keepdims = 0> (tokens, axes) """
TOKENS = np.stack([IDS, MASK], -1).astype(np.float32)
SUMS = TOKENS.sum(1)


def graph_of(gives, body="", takes=TAKES, opset=17):
    head = f'<ir_version: 8, opset_import: ["" : {opset}]>'
    return ir.from_proto(onnx.parser.parse_model(f"{head} g ({takes}) => ({gives}) {{ {BODY} {body} }}"))


def run(folder, model, **more):
    write_graph(model, folder / "g.onnx")
    kinds = {value.name: value.dtype.numpy() for value in model.graph.inputs}
    arrays = {"input_ids": IDS, "attention_mask": MASK, **more}
    return EncoderRunner(folder / "g.onnx", 1).run({name: arrays[name].astype(kinds[name]) for name in kinds})


def shapes(values):
    return {value.name: [getattr(size, "value", size) for size in value.shape] for value in values}


@pytest.mark.parametrize("kind", ["int64", "int32", "float", "bool"])
def test_ids_and_masks_are_whole_numbers_of_64_bits(kind, tmp_path):
    """And the axes have a bundle's names, whatever they had."""
    body = "last_hidden_state = Identity (tokens)"
    takes = f"{'int32' if kind == 'bool' else kind}[x,y] input_ids, {kind}[N,unknown] attention_mask"
    model = graph_of("float[x,y,2] last_hidden_state", body, takes)
    adapt(model, PATH, "feature-extraction")
    assert [value.dtype for value in model.graph.inputs] == [ir.DataType.INT64] * 2
    assert shapes(model.graph.inputs) == {"input_ids": ["batch", "sequence"], "attention_mask": ["batch", "sequence"]}
    assert shapes(model.graph.outputs) == {"last_hidden_state": ["batch", "sequence", 2]}
    np.testing.assert_array_equal(run(tmp_path, model)["last_hidden_state"], TOKENS)


def test_every_reader_of_an_input_gets_the_type_that_it_had(tmp_path):
    body = "n = Neg (input_ids) d = Add (n, input_ids) e = Cast <to = 1> (d) last_hidden_state = Unsqueeze (e, one)"
    model = graph_of("float[B,S,1] last_hidden_state", body, "int32[B,S] input_ids, int64[B,S] attention_mask")
    count = len(list(model.graph))
    adapt(model, PATH, "feature-extraction")
    # One cast, and the other input has its type already.
    assert len(list(model.graph)) == count + 1 and model.graph[0].op_type == "Cast"
    assert run(tmp_path, model)["last_hidden_state"].tolist() == np.zeros((2, 3, 1)).tolist()
    [value, _] = model.graph.inputs
    take_as(model.graph, value, ir.DataType.INT64)
    assert len(list(model.graph)) == count + 1


@pytest.mark.parametrize(
    ("takes", "message"),
    [
        (f"{TAKES}, int64[B,S] position_ids",
         r"^model\.onnx takes the input 'position_ids', which is unknown; known are input_ids, attention_mask, tok"),
        ("int64[B,8] input_ids, int64[B,S] attention_mask", r"takes input_ids of the fixed shape .*8.*, so it cannot"),
        ("int64[1,S] input_ids, int64[B,S] attention_mask", r"takes input_ids of the fixed shape"),
        ("int64[B,S] input_ids, int64[B,S,1] attention_mask", r"takes attention_mask of the fixed shape"),
        ("int64[B] input_ids, int64[B,S] attention_mask", r"takes input_ids of the fixed shape"),
    ],
)  # fmt: skip
def test_inputs_that_a_bundle_does_not_have(takes, message):
    with pytest.raises(UnsupportedError, match=message):
        adapt(graph_of("float[B,S,2] tokens", takes=takes), PATH, "feature-extraction")


@pytest.mark.parametrize("lacking", ["input_ids", "attention_mask"])
def test_an_encoder_of_texts_takes_ids_and_a_mask(lacking):
    model = graph_of("float[B,S,2] last_hidden_state", "last_hidden_state = Identity (tokens)")
    for value in list(model.graph.inputs):
        if value.name == lacking:
            model.graph.inputs.remove(value)
    with pytest.raises(UnsupportedError, match=r"^model\.onnx takes \w+: an encoder of texts takes input_ids, att"):
        adapt(model, PATH, "feature-extraction")


@pytest.mark.parametrize(
    ("gives", "task", "kept"),
    [
        ("float[B,S,2] tokens", "token-classification", "model.onnx gives tokens: token-classification needs logits"),
        ("float[B,S,2] tokens", "feature-extraction", "feature-extraction needs last_hidden_state"),
        ("float[B,S] start_logits", "question-answering", "question-answering needs end_logits"),
        ("float[B,S,2] token_embeddings, float[B,2] other", "feature-extraction", ["last_hidden_state"]),
        ("float[B,2] sentence_embedding, float[B,S,2] token_embeddings", "feature-extraction",
         ["last_hidden_state", "sentence_embedding"]),
        ("float[B,2] sentence_embedding", "feature-extraction", ["sentence_embedding"]),
        ("float[B,2] logits, float[B,S,2] token_embeddings", "text-classification", ["logits"]),
        ("float[B,S] end_logits, float[B,S] start_logits", "question-answering", ["start_logits", "end_logits"]),
    ],
)  # fmt: skip
def test_outputs_that_a_task_needs(gives, task, kept, tmp_path):
    made = {"token_embeddings": "Identity (tokens)", "sentence_embedding": "Identity (sums)", "other": "Neg (sums)",
            "logits": "Identity (sums)", "start_logits": "Identity (f)", "end_logits": "Identity (m)"}  # fmt: skip
    body = " ".join(f"{name} = {how}" for name, how in made.items() if f" {name}" in gives)
    model = graph_of(gives, body)
    if isinstance(kept, str):
        with pytest.raises(UnsupportedError) as caught:
            adapt(model, PATH, task)
        assert kept in str(caught.value)
        return
    adapt(model, PATH, task)
    assert [value.name for value in model.graph.outputs] == kept
    expected = {"last_hidden_state": TOKENS, "sentence_embedding": SUMS, "logits": SUMS,
                "start_logits": IDS, "end_logits": MASK}  # fmt: skip
    found = run(tmp_path, model)
    for name in kept:
        np.testing.assert_array_equal(found[name], expected[name])
        assert found[name].dtype == np.float32
    axes = shapes(model.graph.outputs)
    assert all(axes[name][0] == "batch" for name in kept)
    assert axes.get("start_logits", ["batch", "sequence"]) == ["batch", "sequence"]
    assert axes.get("logits", ["batch", 2]) == ["batch", 2]


def test_labels_of_tokens_have_an_axis_for_them():
    model = graph_of("float[B,S,2] logits", "logits = Identity (tokens)")
    adapt(model, PATH, "token-classification")
    assert shapes(model.graph.outputs) == {"logits": ["batch", "sequence", 2]}
    with pytest.raises(UnsupportedError, match="gives logits of 3 axes, and text-classification has 2"):
        adapt(graph_of("float[B,S,2] logits", "logits = Identity (tokens)"), PATH, "text-classification")


def test_outputs_of_16_bits_become_32(tmp_path):
    model = graph_of("float16[B,2] logits", "logits = Cast <to = 10> (sums)")
    adapt(model, PATH, "text-classification")
    [logits] = model.graph.outputs
    assert (logits.name, logits.dtype, shapes([logits])) == ("logits", ir.DataType.FLOAT, {"logits": ["batch", 2]})
    found = run(tmp_path, model)["logits"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, SUMS)


def test_masks_are_filled_at_positions_alone(tmp_path):
    model = graph_of("float[B,S,2] logits", "logits = Identity (tokens)")
    adapt(model, PATH, "fill-mask")
    assert shapes(model.graph.inputs)["logits_positions"] == ["batch", "num_logits"]
    assert shapes(model.graph.outputs) == {"logits": ["batch", "num_logits", 2]}
    positions = np.array([[2, 0, 0, 1], [1, 1, 0, 2]])
    found = run(tmp_path, model, logits_positions=positions)["logits"]
    np.testing.assert_array_equal(found, np.take_along_axis(TOKENS, positions[..., None], 1))
    for opset in (11, 12):
        old = ir.from_proto(onnx.parser.parse_model(
            f'<ir_version: 7, opset_import: ["" : {opset}]> g ({TAKES}) => (float[B,S] logits) {{'
            " logits = Cast <to = 1> (input_ids) }"
        ))  # fmt: skip
        if opset == 12:
            adapt(old, PATH, "fill-mask")
        else:
            with pytest.raises(ExportError, match=r"^model\.onnx has an opset below 12: export the model again"):
                adapt(old, PATH, "fill-mask")


def test_an_operator_at_the_end():
    model = graph_of("float[B,S,2] tokens")
    value = append(model.graph, "Softmax", [model.graph.outputs[0]], axis=1)
    assert model.graph[-1].outputs[0] is value and model.graph[-1].attributes["axis"].as_int() == 1
