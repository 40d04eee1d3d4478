"""How well documents answer a query, by a model that reads both together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from triform.runtime.classification import TASK, label_logits, sigmoid
from triform.runtime.encoder import Encoder
from triform.runtime.errors import UnsupportedError


def rerank(model: Encoder, query: str, documents: Iterable[str]) -> Iterator[float]:
    """The probability that each document answers the query.

    It is the sigmoid of `relevance`, which is what sentence-transformers' CrossEncoder gives for a model of one label,
    unless the model's config asks it for the number as it is: that is `relevance` itself.

    Args:
        model: a text-classification bundle with one label.
        query: what is asked.
        documents: any number of texts.

    Yields:
        for each document, from 0 to 1.

    Raises:
        UnsupportedError: the bundle is for another task, or has several labels.
        InputError: a text cannot be read.
        TriformError: onnxruntime failed.
    """
    return (probability(logit) for logit in relevance(model, query, documents))


def relevance(model: Encoder, query: str, documents: Iterable[str]) -> Iterator[float]:
    """The model's own number for each document: higher is better, with no bounds. Arguments and errors as `rerank`.

    Sort by it: probabilities near 1 may be equal where these numbers are not.
    """
    _check(model)
    return (float(logits[0]) for logits in label_logits(model, ((query, text) for text in documents), "rerank"))


def probability(logit: float) -> float:
    """The probability for a number that `relevance` gave."""
    return float(sigmoid(np.array(logit)))


def _check(model: Encoder) -> None:
    if model.manifest.task == "feature-extraction":
        raise UnsupportedError(
            "rerank needs a model that reads query and document together (text-classification with one label); "
            "this one makes a vector of each: use `triform search`"
        )
    model.require("rerank", TASK)
    if len(model.info.labels) != 1:
        raise UnsupportedError(
            f"rerank needs a model with one label; this one has {len(model.info.labels)}: use `triform classify`"
        )
