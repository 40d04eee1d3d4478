"""Metrics against transformers, jiwer, sacrebleu, and arithmetic."""

from __future__ import annotations

from types import SimpleNamespace

import jiwer
import numpy as np
import pytest
import sacrebleu
import torch
import transformers

import triform
from triform.export.samples import texts
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.evaluation import labels as labels_module
from triform.runtime.evaluation.bootstrap import estimates
from triform.runtime.evaluation.generated import evaluate_generation
from triform.runtime.evaluation.labels import evaluate_labels, evaluate_spans
from triform.runtime.evaluation.measurement import ratio
from triform.runtime.evaluation.pairs import evaluate_similarity, ranks
from triform.runtime.evaluation.speech import error_counts, spoken_words
from triform.runtime.evaluation.texts import evaluate_text

# Of four pairs, ever farther apart.
VECTORS = np.array([[1, 0], [1, 0], [1, 0], [1, 1], [1, 0], [1, 2], [1, 0], [1, 3]], np.float32)


def values(measured):
    return {metric.name: metric.compute(measured.rows) for metric in measured.metrics}


def test_perplexity_is_the_exponential_of_the_loss_of_transformers(float_bundle, checkpoint):
    text = texts.read_text("evaluation")[:600]
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    ids = transformers.AutoTokenizer.from_pretrained(checkpoint)(text, return_tensors="pt").input_ids
    with torch.no_grad():
        loss = model(ids, labels=ids).loss.item()
    measured = evaluate_text(triform.load_decoder(float_bundle), text, window=ids.shape[1])
    assert values(measured)["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
    bits = loss * (ids.shape[1] - 1) / np.log(2) / len(text.encode())
    assert values(measured)["bits per byte"] == pytest.approx(bits, rel=1e-4)


def test_windows_overlap_by_half_and_each_token_counts_once(float_bundle, checkpoint):
    text, window = texts.read_text("evaluation")[:600], 64
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint).eval()
    ids = transformers.AutoTokenizer.from_pretrained(checkpoint)(text, return_tensors="pt").input_ids
    # The first token has no loss.
    total, counted, end = 0.0, 1, window
    while counted < ids.shape[1]:
        end = min(end, ids.shape[1])
        chunk = ids[:, end - window : end]
        targets = chunk.clone()
        targets[:, : -(end - counted)] = -100
        with torch.no_grad():
            total += model(chunk, labels=targets).loss.item() * (end - counted)
        counted, end = end, end + window // 2
    measured = evaluate_text(triform.load_decoder(float_bundle), text, window=window)
    assert values(measured)["perplexity"] == pytest.approx(np.exp(total / (ids.shape[1] - 1)), rel=1e-3)
    assert measured.details["stride"] == 32


@pytest.mark.parametrize("window", [1, 10**6])
def test_a_window_that_does_not_fit_is_refused(float_bundle, window):
    with pytest.raises(InputError, match=rf"^`window` must be from 2 to the model's \d+ tokens, not {window}$"):
        evaluate_text(triform.load_decoder(float_bundle), "a b c", window=window)


def test_error_rates_are_those_of_jiwer():
    said = ["the cat sat on the mat", "a dog", "it rains"]
    heard = ["the cat sat on mat", "a big dog", "it pours"]
    rows = np.array(error_counts(said, heard, exact=True), np.float64)
    assert ratio("WER", 0, 1).compute(rows) == pytest.approx(jiwer.wer(said, heard))
    assert ratio("CER", 2, 3).compute(rows) == pytest.approx(jiwer.cer(said, heard))


def test_case_and_punctuation_count_only_if_they_should():
    assert spoken_words("Don’t  STOP, Mr. Fox!") == "dont stop mr fox"
    assert spoken_words("नमस्ते।") == "नमस्ते"
    assert error_counts(["Yes, sir."], ["yes sir"], exact=False)[0][0] == 0
    assert error_counts(["Yes, sir."], ["yes sir"], exact=True)[0][0] == 2


def test_what_is_heard_in_silence_is_counted():
    assert error_counts([""], ["two words"], exact=False)[0][:2] == [2, 0]


def test_scores_of_texts_are_those_of_sacrebleu():
    answers = ["The house is small.", "A green ship sails slowly over the sea.", "Nothing"]
    references = ["The house is small.", "The green ship sailed slowly over the sea.", "Everything is well."]
    measured = evaluate_generation(answers, references)
    assert values(measured)["chrF2"] == pytest.approx(sacrebleu.corpus_chrf(answers, [references]).score)
    assert values(measured)["BLEU"] == pytest.approx(sacrebleu.corpus_bleu(answers, [references]).score)
    assert measured.scores[0] == pytest.approx(100)


def test_correlations():
    """Spearman is 1 - 6 * sum(d^2) / (n^3 - n) without ties: here d = (0, 1, 1, 0)."""
    encoder = SimpleNamespace(embed=lambda texts: VECTORS)
    measured = evaluate_similarity(encoder, [("a", "b")] * 4, [4, 2, 3, 1])
    assert values(measured)["Spearman"] == pytest.approx(1 - 6 * 2 / (64 - 4))
    cosine = 1 / np.sqrt(1 + np.array([0.0, 1.0, 2.0, 3.0]) ** 2)
    assert values(measured)["Pearson"] == pytest.approx(np.corrcoef(cosine, [4, 2, 3, 1])[0, 1])
    assert ranks(np.array([7.0, 5.0, 7.0, 9.0])).tolist() == [2.5, 1, 2.5, 4]


def classifier(monkeypatch, predicted, **info):
    monkeypatch.setattr(labels_module, "classify", lambda model, texts: ([(label, 1.0)] for label in predicted))
    return SimpleNamespace(info=SimpleNamespace(**{"labels": ("a", "b", "c"), "problem_type": None, **info}))


def test_accuracy_and_macro_f1(monkeypatch):
    """a: 2 of 2 right and 3 predicted, F1 4/5; b: 1 of 2 right, F1 2/3; c occurs nowhere."""
    model = classifier(monkeypatch, ["a", "a", "a", "b"])
    measured = evaluate_labels(model, ["w", "x", "y", "z"], ["a", "a", "b", "b"])
    assert values(measured) == pytest.approx({"accuracy": 0.75, "macro F1": (4 / 5 + 2 / 3) / 2})
    assert estimates(measured, seed=0)["accuracy"].low < 0.75


def test_labels_that_the_model_does_not_know_are_refused(monkeypatch):
    with pytest.raises(InputError, match=r"^item 1 has the label 'd'; the model has a, b, c$"):
        evaluate_labels(classifier(monkeypatch, ["a"]), ["x"], ["d"])
    with pytest.raises(UnsupportedError, match="this one is for multi_label_classification"):
        evaluate_labels(classifier(monkeypatch, ["a"], problem_type="multi_label_classification"), ["x"], ["a"])


def test_spans(monkeypatch):
    """Two spans are right of three predicted and four expected."""
    results = [
        [triform.Tag("PER", 1, 0, 3, "Ada"), triform.Tag("LOC", 1, 9, 11, "Ur")],
        [triform.Tag("ORG", 1, 0, 2, "UN")],
    ]
    monkeypatch.setattr(labels_module, "tag", lambda model, texts: iter(results))
    right = [[(0, 3, "PER"), (9, 12, "LOC")], [(0, 2, "ORG"), (5, 8, "PER")]]
    measured = evaluate_spans(SimpleNamespace(), ["Ada in Ur", "UN"], right)
    assert values(measured) == pytest.approx({"F1": 4 / 7, "precision": 2 / 3, "recall": 1 / 2})
