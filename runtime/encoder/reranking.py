"""Scores how well documents answer a query, with a model that reads both together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from triform.runtime.arithmetic import sigmoid
from triform.runtime.encoder.classification import TASK, label_logits
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.errors import UnsupportedError

_FUNCTIONS: dict[str, Callable[[np.float64], np.float64]] = {
    "identity": lambda logit: logit,
    "sigmoid": lambda logit: np.float64(sigmoid(np.array(logit))),
    "tanh": np.tanh,
}


def rerank(model: OpenEncoder, query: str, documents: Iterable[str]) -> Iterator[float]:
    """Score how well each document answers the query, as a CrossEncoder of sentence-transformers does.

    The score is the logit of `relevance` after the activation function in the model's config, by default the sigmoid,
    which makes it a probability.

    Args:
        model: a text-classification bundle with one label.
        query: the query.
        documents: any number of texts.

    Yields:
        for each document its score; higher is better.

    Raises:
        UnsupportedError: the bundle is for another task, or has several labels.
        InputError: a text cannot be read.
        TriformError: onnxruntime failed.
    """
    return (score(model, logit) for logit in relevance(model, query, documents))


def relevance(model: OpenEncoder, query: str, documents: Iterable[str]) -> Iterator[float]:
    """Compute the model's logit for each document: higher is better. Arguments and errors as in `rerank`.

    Sort by the logits: different logits may have equal scores, rounded to 0 or 1.
    """
    _check(model)
    return (float(logits[0]) for logits in label_logits(model, ((query, text) for text in documents), "rerank"))


def score(model: OpenEncoder, logit: float) -> float:
    """Return the score for a logit of `relevance`."""
    return float(_FUNCTIONS[model.info.relevance or "sigmoid"](np.float64(logit)))


def _check(model: OpenEncoder) -> None:
    if model.manifest.task == "feature-extraction":
        raise UnsupportedError(
            "rerank needs a model that reads query and document together (text-classification with one label); "
            "this one makes a vector of each: use `Encoder.search`"
        )
    model.require("rerank", TASK)
    if len(model.info.labels) != 1:
        raise UnsupportedError(
            f"rerank needs a model with one label; this one has {len(model.info.labels)}: use `Encoder.classify`"
        )
