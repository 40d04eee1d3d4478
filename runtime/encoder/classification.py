"""Scores a model's own labels for texts and pairs of texts, and whether one text follows another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import check_numbers, sigmoid, softmax
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.errors import BundleError
from triform.runtime.text.pages import Text
from triform.runtime.text.rows import Pair

TASK = "text-classification"


def classify(model: OpenEncoder, texts: Iterable[Text | Pair]) -> Iterator[list[tuple[str, float]]]:
    """Score every label for each text, as transformers' text-classification pipeline does.

    Args:
        model: a text-classification bundle.
        texts: any number of texts, pages or pairs.

    Yields:
        for each text, (label, score) of every label, the highest score first: probabilities that sum to 1 if one label
        applies; each label's own probability if several may apply or there is only one label; the model's output
        itself for a regression.

    Raises:
        UnsupportedError: the bundle is for another task.
        BundleError: the bundle does not name its labels, or the logits hold NaN or an infinity.
        InputError: a text cannot be read.
        TriformError: onnxruntime failed.
    """
    for logits in label_logits(model, texts, "classify"):
        named = zip(model.info.labels, scores(logits, model.info.problem_type).tolist(), strict=True)
        yield sorted(named, key=lambda pair: pair[1], reverse=True)


def label_logits(model: OpenEncoder, texts: Iterable[Text | Pair], purpose: str) -> Iterator[NDArray[np.float32]]:
    """Compute the logits of the labels for each text.

    Args:
        model: a text-classification bundle.
        texts: any number of texts, pages or pairs.
        purpose: see `OpenEncoder.require`.

    Yields:
        for each text, float32 of shape (labels,).

    Raises:
        UnsupportedError: the bundle is for another task.
        BundleError: the bundle does not name its labels, or the logits hold NaN or an infinity.
        InputError: a text cannot be read.
        TriformError: onnxruntime failed.
    """
    model.require(purpose, TASK)
    labels = model.info.labels
    for (logits,) in model.step.in_batches(model.reader().stream(texts), ("logits",)):
        if len(logits) != len(labels):
            raise BundleError(
                f"the bundle names {len(labels)} labels for a graph that gives {len(logits)}; export the model again"
            )
        check_numbers([logits])
        yield logits


def scores(logits: NDArray[np.floating], problem_type: str | None) -> NDArray[np.floating]:
    """Turn logits into scores as transformers' pipelines do: probabilities, or the logits themselves for a regression.

    Args:
        logits: float (…, labels).
        problem_type: regression, multi_label_classification or single_label_classification; None means the last.

    Returns:
        float (…, labels).
    """
    if problem_type == "regression":
        return logits
    if problem_type == "multi_label_classification" or logits.shape[-1] == 1:
        return sigmoid(logits)
    return softmax(logits.astype(np.float64))


def next_sentence(model: OpenEncoder, pairs: Iterable[Pair]) -> Iterator[float]:
    """Compute the probability that the second text of each pair follows the first.

    The first of the graph's two logits means "is next" (Devlin et al. 2018, https://arxiv.org/abs/1810.04805, in the
    order of transformers' BertForNextSentencePrediction).

    Args:
        model: a next-sentence-prediction bundle.
        pairs: any number of pairs of texts.

    Yields:
        for each pair, from 0 to 1.

    Raises:
        UnsupportedError: the bundle is for another task.
        BundleError: the logits hold NaN or an infinity.
        InputError: a text cannot be read.
        TriformError: onnxruntime failed.
    """
    model.require("next-sentence", "next-sentence-prediction")
    for (logits,) in model.step.in_batches(model.reader().stream(pairs), ("logits",)):
        check_numbers([logits])
        yield float(softmax(logits.astype(np.float64))[0])
