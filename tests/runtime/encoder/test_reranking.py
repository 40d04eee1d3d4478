"""`triform rerank`, against transformers running the same cross-encoder.

sentence-transformers' CrossEncoder gives the sigmoid of a single logit, which is what transformers' pipeline gives too,
or what the config asks for instead.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from transformers import AutoConfig, PretrainedConfig, pipeline

from tests.checkpoints.encoders import bert_folder
from tests.helpers.bundles import change, read_manifest_json
from tests.helpers.commands import invoke, one_line
from triform.export.checkpoint.sentence.sentence_transformers import relevance_of
from triform.export.options import ExportOptions
from triform.export.pipeline import export
from triform.runtime.encoder.classification import classify
from triform.runtime.encoder.reranking import relevance, rerank
from triform.runtime.errors import ExportError, UnsupportedError
from triform.runtime.opening import load_encoder

QUERY = "when did the ferry leave"
DOCUMENTS = [
    "The ferry left the harbor before dawn.",
    "Rain.",
    "Nobody in the village had seen a winter like that one, and the oldest of them said so every evening.",
    "Two boats, three nets and not a single fish!",
    "A much longer passage " + "about ropes and sails and the men who knew them " * 20,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("rerankers")


@pytest.fixture(scope="module")
def source(folder):
    changes = {"num_labels": 1, "num_hidden_layers": 1, "initializer_range": 0.1}
    return bert_folder(folder / "checkpoint", "BertForSequenceClassification", **changes)


@pytest.fixture(scope="module")
def bundle(folder, source):
    export(str(source), folder / "bundle", ExportOptions(quantize="none"))
    return folder / "bundle"


def reference(source, function):
    """transformers' own number for each document."""
    score = pipeline("text-classification", model=str(source), function_to_apply=function, truncation=True)
    return [score({"text": QUERY, "text_pair": document})["score"] for document in DOCUMENTS]


def test_scores(source, bundle):
    model = load_encoder(bundle)
    expected = reference(source, "sigmoid")
    assert model.rerank(QUERY, DOCUMENTS) == pytest.approx(expected, abs=2e-5)
    assert list(relevance(model, QUERY, DOCUMENTS)) == pytest.approx(reference(source, "none"), abs=1e-4)
    assert max(expected) - min(expected) > 1e-3
    labeled = classify(model, [(QUERY, document) for document in DOCUMENTS])
    assert [score for ((_, score),) in labeled] == pytest.approx(expected, abs=2e-5)


ACTIVATIONS = {
    "identity": {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.0.0"}},
    "tanh": {"sbert_ce_default_activation_function": "torch.nn.modules.activation.Tanh"},
    "sigmoid": {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid"},
                "sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
}  # fmt: skip
FUNCTIONS = {"identity": lambda number: number, "tanh": np.tanh, "sigmoid": lambda number: 1 / (1 + np.exp(-number))}


def edited(source, folder, **changes):
    shutil.copytree(source, folder)
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_scores_are_made_as_the_config_says(capsys, source, bundle, tmp_path, name):
    """What export reads of the config, in the manifest of the bundle whose weights are the same."""
    config = AutoConfig.from_pretrained(edited(source, tmp_path / "source", **ACTIVATIONS[name]))
    info = read_manifest_json(shutil.copytree(bundle, tmp_path / "bundle"))["encoder"]
    assert info["relevance"] == "sigmoid"
    change(tmp_path / "bundle", encoder={**info, "relevance": relevance_of(config, tmp_path / "source")})
    numbers = reference(source, "none")
    expected = [FUNCTIONS[name](number) for number in numbers]
    assert list(rerank(load_encoder(tmp_path / "bundle"), QUERY, DOCUMENTS)) == pytest.approx(expected, abs=1e-4)
    _, out, _ = invoke(capsys, "rerank", tmp_path / "bundle", QUERY, *DOCUMENTS, "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["score"] for one in found] == pytest.approx(sorted(expected)[::-1], abs=1e-4)
    assert [one["logit"] for one in found] == pytest.approx(sorted(numbers)[::-1], abs=1e-4)


def test_which_activation_counts(source, tmp_path):
    def found(**changes):
        return relevance_of(PretrainedConfig(**changes), tmp_path)

    assert found() == "sigmoid"
    assert found(sentence_transformers={"version": "5.0.0"}) == "sigmoid"
    # Code of somebody else's is not run, by sentence-transformers neither.
    assert found(sentence_transformers={"activation_fn": "my_code.Function"}) == "sigmoid"
    with pytest.raises(ExportError, match=r"torch\.nn\.modules\.activation\.Softplus, which is not supported"):
        found(sentence_transformers={"activation_fn": "torch.nn.modules.activation.Softplus"})
    own = {"activation_fn": "torch.nn.modules.activation.Tanh"}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(own))
    assert found(**ACTIVATIONS["identity"]) == "tanh"


def test_a_manifest_with_an_unknown_function(capsys, bundle, tmp_path):
    info = read_manifest_json(shutil.copytree(bundle, tmp_path / "bundle"))["encoder"]
    change(tmp_path / "bundle", encoder={**info, "relevance": "exec"})
    code, out, err = invoke(capsys, "rerank", tmp_path / "bundle", QUERY, "a")
    assert (code, out) == (1, "")
    assert "encoder.relevance must be identity or sigmoid or tanh, not 'exec'" in one_line(err)


def test_the_best_come_first(capsys, source, bundle):
    scores = reference(source, "sigmoid")
    order = sorted(range(len(DOCUMENTS)), key=lambda index: -scores[index])
    lines = [f"{scores[index]:.4f}\t{index + 1}\t{DOCUMENTS[index].strip()}" for index in order]
    code, out, err = invoke(capsys, "rerank", bundle, QUERY, *DOCUMENTS)
    assert (code, out.splitlines()) == (0, lines)
    assert "cut 1 text longer than 96 tokens" in err
    _, best, _ = invoke(capsys, "rerank", bundle, QUERY, *DOCUMENTS, "--top-k", 2)
    assert best.splitlines() == lines[:2]


def test_json_lines(capsys, source, bundle, tmp_path):
    scores, logits = reference(source, "sigmoid"), reference(source, "none")
    order = sorted(range(len(DOCUMENTS)), key=lambda index: -scores[index])
    file = tmp_path / "documents.jsonl"
    file.write_text("".join(json.dumps({"id": f"d{i}", "body": text}) + "\n" for i, text in enumerate(DOCUMENTS)))
    code, out, _ = invoke(capsys, "rerank", bundle, QUERY, "--file", file, "--field", "body", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(one["rank"], one["id"], one["number"]) for one in found] == [
        (rank, f"d{index}", index + 1) for rank, index in enumerate(order, 1)
    ]
    assert [one["score"] for one in found] == pytest.approx([scores[index] for index in order], abs=2e-5)
    assert [one["logit"] for one in found] == pytest.approx([logits[index] for index in order], abs=1e-4)


def test_a_default_bundle(capsys, bundle, monkeypatch):
    expected = invoke(capsys, "rerank", bundle, QUERY, *DOCUMENTS[:2])
    monkeypatch.setenv("TRIFORM_BUNDLE", str(bundle))
    assert invoke(capsys, "rerank", QUERY, *DOCUMENTS[:2]) == expected
    code, out, err = invoke(capsys, "rerank")
    assert (code, out) == (2, "")
    assert "no query" in one_line(err)


def test_a_model_that_makes_vectors(capsys, bundle, tmp_path):
    """Seen by its task alone."""
    folder = shutil.copytree(bundle, tmp_path / "bi-encoder")
    change(folder, task="feature-extraction")
    code, out, err = invoke(capsys, "rerank", folder, QUERY, *DOCUMENTS)
    assert (code, out) == (1, "")
    assert "use `triform search`" in one_line(err)
    code, out, err = invoke(capsys, "classify", folder, "a text", "--labels", "a,b")
    assert (code, out) == (1, "")
    assert "needs a bundle for text-classification; this one is for feature-extraction" in one_line(err)


def test_a_model_of_several_labels(bundle):
    model = load_encoder(bundle)
    model.info.labels.append("another")
    with pytest.raises(UnsupportedError, match=r"with one label; this one has 2: use `Encoder.classify`$"):
        rerank(model, QUERY, DOCUMENTS)


def test_bad_options(capsys, bundle):
    code, out, err = invoke(capsys, "rerank", bundle, QUERY, "a", "--top-k", 0)
    assert (code, out) == (2, "")
    assert "--top-k must be at least 1" in one_line(err)
    code, out, err = invoke(capsys, "rerank", bundle, QUERY, "a", "--file", "nowhere.txt")
    assert (code, out) == (2, "")
    assert "not both" in one_line(err)
