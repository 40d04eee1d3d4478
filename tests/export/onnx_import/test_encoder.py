"""Graphs of others become bundles that give PyTorch's numbers, or are refused by what is unknown in them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
import transformers

import triform
from tests.checkpoints.encoders import VOCAB, bert_folder
from tests.checkpoints.onnx_folders import add_traced, table_graph
from triform.cli.main import run
from triform.export.onnx_import.found import ImportOptions
from triform.export.onnx_import.importing import import_model
from triform.runtime.errors import ExportError, InputError, UnsupportedError

TEXTS = ["The keeper lit the lamp.", "A ship."]
TABLE = np.random.default_rng(0).standard_normal((VOCAB, 8)).astype(np.float32)
INT64 = onnx.TensorProto.INT64


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """A folder without a graph."""
    folder = bert_folder(tmp_path_factory.mktemp("bare") / "model")
    (folder / "model.safetensors").unlink()
    return folder


@pytest.fixture
def folder(bare, tmp_path):
    return shutil.copytree(bare, tmp_path / "model")


def add_table(folder, file="model.onnx", **changes):
    (folder / file).parent.mkdir(exist_ok=True)
    onnx.save(table_graph(TABLE, **changes), folder / file)
    return folder


def mean_vectors(folder, texts, table=TABLE):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return np.stack([table[tokenizer(text)["input_ids"]].mean(0) for text in texts])


def torch_outputs(source, architecture, texts):
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = getattr(transformers, architecture).from_pretrained(source).eval()
    with torch.no_grad():
        return [model(**tokenizer(text, return_tensors="pt")) for text in texts]


def test_a_folder_of_sentence_transformers(sentence_source, tmp_path):
    """Its mean pooling and its normalization are added; prompts are taken over."""
    source = shutil.copytree(sentence_source, tmp_path / "source")
    add_traced(source, "BertModel", ("last_hidden_state",), "onnx/model.onnx")
    report = import_model(source, tmp_path / "bundle")
    assert (report.task, report.notes) == ("feature-extraction", ())
    model = triform.load_encoder(tmp_path / "bundle")
    means = [outputs.last_hidden_state[0].mean(0).numpy() for outputs in torch_outputs(source, "BertModel", TEXTS)]
    expected = np.stack([vector / np.linalg.norm(vector) for vector in means])
    np.testing.assert_allclose(model.embed(TEXTS, prompt_name="plain"), expected, atol=2e-6)
    assert model.info.embedding.prompts["query"] == "Find what answers: "


def test_a_classifier(tmp_path, capsys):
    labels = {"id2label": {0: "bad", 1: "good", 2: "so-so"}, "label2id": {"bad": 0, "good": 1, "so-so": 2}}
    source = bert_folder(tmp_path / "source", "BertForSequenceClassification", **labels)
    add_traced(source, "BertForSequenceClassification", ("logits",))
    capsys.readouterr()
    assert run(["import", str(source), str(tmp_path / "bundle")]) == 0
    assert capsys.readouterr().err.splitlines() == ["read …", "load …", "write …", "compare …", "write …"]
    answers = triform.load_encoder(tmp_path / "bundle").classify(TEXTS)
    for answer, outputs in zip(answers, torch_outputs(source, "BertForSequenceClassification", TEXTS), strict=True):
        expected = dict(zip(labels["label2id"], outputs.logits[0].softmax(0).tolist(), strict=True))
        assert dict(answer) == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("names", [["input_ids", "attention_mask"], ["input_ids", "token_type_ids", "attention_mask"]])
def test_types_of_tokens_that_a_tokenizer_does_not_give_are_0(tmp_path, names):
    """As in PyTorch, and not those that its tokenizer.json has for a second text."""
    source = bert_folder(tmp_path / "source", "BertForSequenceClassification", num_labels=3)
    path = source / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_input_names": names}))
    add_traced(source, "BertForSequenceClassification", ("logits",))
    import_model(source, tmp_path / "bundle")
    model = triform.load_encoder(tmp_path / "bundle")
    assert ("token_type_ids" in {value.name for value in model.manifest.graphs["encoder"].inputs}) is (len(names) == 3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    reference = transformers.BertForSequenceClassification.from_pretrained(source).eval()
    with torch.no_grad():
        logits = reference(**tokenizer(*TEXTS, return_tensors="pt")).logits[0]
    expected = {f"LABEL_{index}": score for index, score in enumerate(logits.softmax(0).tolist())}
    assert dict(next(iter(model.classify([(TEXTS[0], TEXTS[1])])))) == pytest.approx(expected, abs=2e-6)


def test_masks_are_filled_from_the_logits_at_their_places(tmp_path):
    source = bert_folder(tmp_path / "source", "BertForMaskedLM")
    add_traced(source, "BertForMaskedLM", ("logits",))
    import_model(source, tmp_path / "bundle")
    text = "The [MASK] lit the lamp."
    [outputs] = torch_outputs(source, "BertForMaskedLM", [text])
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    place = tokenizer(text)["input_ids"].index(tokenizer.mask_token_id)
    best = outputs.logits[0, place].softmax(0).topk(3)
    [[answer]] = triform.load_encoder(tmp_path / "bundle").fill_mask([text], top_k=3)
    assert [fill.token for fill in answer] == best.indices.tolist()
    assert [fill.score for fill in answer] == pytest.approx(best.values.tolist(), abs=2e-6)


@pytest.mark.parametrize("dtype", [onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16])
def test_types_and_names_of_other_tools(folder, tmp_path, dtype):
    """int32 inputs, half floats, and the output's name in sentence-transformers."""
    kinds = (("input_ids", onnx.TensorProto.INT32), ("attention_mask", onnx.TensorProto.INT32))
    add_table(folder, inputs=kinds, dtype=dtype, output="token_embeddings")
    import_model(folder, tmp_path / "bundle")
    found = triform.load_encoder(tmp_path / "bundle").embed(TEXTS)
    table = TABLE.astype(np.float16).astype(np.float32) if dtype == onnx.TensorProto.FLOAT16 else TABLE
    np.testing.assert_allclose(found, mean_vectors(folder, TEXTS, table), atol=1e-6)


def test_the_graph_is_chosen(folder, tmp_path):
    add_table(folder, "onnx/model_quantized.onnx")
    other = table_graph(-TABLE)
    onnx.save(other, folder / "onnx" / "model_fp16.onnx")
    with pytest.raises(InputError, match=r"choose one with `file`: onnx/model_fp16\.onnx, onnx/model_quantized\.onnx"):
        import_model(folder, tmp_path / "bundle")
    import_model(folder, tmp_path / "bundle", ImportOptions(file="onnx/model_fp16.onnx"))
    found = triform.load_encoder(tmp_path / "bundle").embed(TEXTS)
    np.testing.assert_allclose(found, -mean_vectors(folder, TEXTS), atol=1e-6)
    with pytest.raises(InputError, match=r"no/model\.onnx is not in"):
        import_model(folder, tmp_path / "other", ImportOptions(file="no/model.onnx"))


def test_rows_that_change_each_other_are_noted(folder, tmp_path):
    """One scale for all rows of a batch, as in dynamic quantization: a row's numbers depend on the others."""
    graph = table_graph(TABLE)
    helper = onnx.helper
    [gather] = graph.graph.node
    gather.output[0] = "looked_up"
    graph.graph.node.extend(
        [
            helper.make_node("DynamicQuantizeLinear", ["looked_up"], ["rounded", "scale", "zero"]),
            helper.make_node("DequantizeLinear", ["rounded", "scale", "zero"], ["last_hidden_state"]),
        ]
    )
    onnx.save(graph, folder / "model.onnx")
    [note] = import_model(folder, tmp_path / "bundle").notes
    assert "with the texts that are run together" in note
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_text())
    assert manifest["export"]["notes"] == [note]
    assert manifest["graphs"]["encoder"]["quantization"]["scheme"] == "keep"


def refusal(folder, tmp_path, kind, said, **options):
    with pytest.raises(kind) as failure:
        import_model(folder, tmp_path / "bundle", ImportOptions(**options))
    assert said in str(failure.value)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": (("input_ids", INT64), ("attention_mask", INT64), ("bbox", INT64))}, "the input 'bbox'"),
        ({"inputs": (("ids", INT64), ("attention_mask", INT64))}, "the input 'ids'"),
        ({"inputs": (("input_ids", INT64),)}, "an encoder of texts takes input_ids, attention_mask"),
        ({"shape": (1, 16)}, "input_ids of the fixed shape"),
    ],
)
def test_graphs_that_are_refused(folder, tmp_path, changes, said):
    refusal(add_table(folder, **changes), tmp_path, UnsupportedError, said)


def test_tasks_that_do_not_fit(folder, tmp_path):
    refusal(add_table(folder), tmp_path, InputError, "text-generation cannot be imported", task="text-generation")
    refusal(folder, tmp_path, UnsupportedError, "fill-mask needs logits", task="fill-mask")
    refusal(add_table(folder, output="scores"), tmp_path, InputError, "the task of")


@pytest.mark.parametrize(
    ("head", "task", "said"),
    [
        ("Token", "text-classification", "gives logits of 3 axes, and text-classification has 2"),
        ("Sequence", "token-classification", "gives logits of 2 axes, and token-classification has 3"),
    ],
)
def test_another_task_with_logits(tmp_path, head, task, said):
    source = bert_folder(tmp_path / "source", f"BertFor{head}Classification", num_hidden_layers=1, num_labels=3)
    add_traced(source, f"BertFor{head}Classification", ("logits",))
    refusal(source, tmp_path, UnsupportedError, said, task=task)


def test_folders_that_are_refused(folder, tmp_path):
    refusal(folder, tmp_path, ExportError, "has no .onnx file")
    refusal(tmp_path / "no", tmp_path, ExportError, "is not a folder")
    (folder / "model.onnx").write_bytes(b"\xff\xfe no graph")
    refusal(folder, tmp_path, ExportError, "cannot be read as an ONNX graph")
    (folder / "encoder_model.onnx").write_bytes(b"")
    refusal(folder, tmp_path, ExportError, "lacks decoder_model.onnx, or decoder_model_merged.onnx")
    (folder / "encoder_model.onnx").unlink()
    onnx.save(table_graph(TABLE), folder / "model.onnx")
    (folder / "config.json").unlink()
    refusal(folder, tmp_path, ExportError, "has no config.json")


@pytest.mark.parametrize(("place", "said"), [("../secret", "unsafe"), ("/etc/hostname", "unsafe"), ("gone", "missing")])
def test_weights_outside_the_folder(folder, tmp_path, place, said):
    (tmp_path / "secret").write_bytes(TABLE.tobytes())
    graph = table_graph(TABLE)
    tensor = graph.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location=place, offset=0, length=TABLE.nbytes)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    (folder / "model.onnx").write_bytes(graph.SerializeToString())
    refusal(folder, tmp_path, ExportError, said)


def test_a_target_that_exists(folder, tmp_path, capsys):
    add_table(folder)
    (tmp_path / "bundle").mkdir()
    assert run(["import", str(folder), str(tmp_path / "bundle")]) == 1
    assert "exists; use --force" in capsys.readouterr().err


COUNTED = """<ir_version: 8, opset_import: ["" : 17]>
g (int64[batch,sequence] input_ids, int64[batch,sequence] attention_mask) => (float[batch,LABELS] logits) {
    m = Cast <to = 1> (attention_mask) axes = Constant <value_ints = [1]> () n = ReduceSum (m, axes)
    h = Constant <value_float = 100.0> () s = Div (n, h)
    logits = Concat <axis = 1> (PARTS)
}"""


@pytest.mark.parametrize(
    ("labels", "named", "problem"),
    [
        (2, None, "single_label_classification"),
        (1, None, "multi_label_classification"),
        (2, "multi_label_classification", "multi_label_classification"),
        (2, "single_label_classification", "single_label_classification"),
        (1, "regression", "regression"),
    ],
)
def test_how_classes_are_scored(folder, tmp_path, labels, named, problem):
    """As the config says, or by transformers' rule; each logit is a hundredth of the text's tokens."""
    graph = COUNTED.replace("LABELS", str(labels)).replace("PARTS", ", ".join("s" * labels))
    onnx.save(onnx.parser.parse_model(graph), folder / "model.onnx")
    config = json.loads((folder / "config.json").read_text()) | {
        "architectures": ["BertForSequenceClassification"],
        "id2label": {str(index): f"class {index}" for index in range(labels)},
        "label2id": {f"class {index}": index for index in range(labels)},
        "problem_type": named,
    }
    (folder / "config.json").write_text(json.dumps(config))
    import_model(folder, tmp_path / "bundle")
    model = triform.load_encoder(tmp_path / "bundle")
    assert (model.info.problem_type, len(model.info.labels)) == (problem, labels)
    [answer] = model.classify(TEXTS[:1])
    logit = len(transformers.AutoTokenizer.from_pretrained(folder)(TEXTS[0])["input_ids"]) / 100
    score = {"regression": logit, "single_label_classification": 1 / labels}.get(problem, 1 / (1 + np.exp(-logit)))
    assert [value for _, value in answer] == pytest.approx([score] * labels, abs=1e-6)
