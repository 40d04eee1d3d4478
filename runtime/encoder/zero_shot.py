"""Labels of the user's own for texts, by a model that tells whether one text follows from another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from triform.runtime.arithmetic import softmax
from triform.runtime.encoder.classification import label_logits
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.errors import InputError, UnsupportedError

TEMPLATE = "This example is {}."
_COMMAND = "classify with labels of your own"


def zero_shot(
    model: OpenEncoder,
    texts: Iterable[str],
    labels: Sequence[str],
    *,
    template: str = TEMPLATE,
    multi_label: bool = False,
) -> Iterator[list[tuple[str, float]]]:
    """How well each of the user's labels fits each text, as transformers' zero-shot-classification pipeline does it.

    The model reads each text together with each label's hypothesis. One difference to transformers: it looks for the
    label of entailment by name and takes the first or last label for that of contradiction; here both go by name.

    Args:
        model: a text-classification bundle of a model trained on natural language inference.
        texts: any number of texts.
        labels: at least one.
        template: a hypothesis with {} for the label.
        multi_label: whether several labels may fit a text; each then has a probability of its own.

    Yields:
        for each text, (label, score) of every label, the highest score first. The scores sum to 1 unless
        `multi_label`; a single label has its own probability either way.

    Raises:
        UnsupportedError: the bundle is not of such a model.
        BundleError: it does not name the labels its graph gives.
        InputError: there is no label, the template has no {}, or a text cannot be read.
        TriformError: onnxruntime failed.
    """
    hypotheses = _hypotheses(labels, template)
    entailment, contradiction = _find_labels(model)
    pairs = ((text, hypothesis) for text in texts for hypothesis in hypotheses)
    logits = label_logits(model, pairs, _COMMAND)
    while group := list(islice(logits, len(labels))):
        found = np.stack(group).astype(np.float64)
        if multi_label or len(labels) == 1:
            scores = _against(found, entailment, contradiction)
        else:
            scores = softmax(found[:, entailment])
        yield sorted(zip(labels, scores.tolist(), strict=True), key=lambda pair: pair[1], reverse=True)


def _hypotheses(labels: Sequence[str], template: str) -> list[str]:
    if not labels:
        raise InputError("give at least one label")
    try:
        found = [template.format(label) for label in labels]
    except (LookupError, ValueError, AttributeError):
        found = [template]
    if template in found:
        raise InputError(f"the hypothesis template {template!r} must have one {{}}, where the label goes")
    return found


def _find_labels(model: OpenEncoder) -> tuple[int, int]:
    model.require(_COMMAND, "text-classification")
    names = [name.lower() for name in model.info.labels]
    entailment = next((index for index, name in enumerate(names) if name.startswith("entail")), None)
    if entailment is None or len(names) < 2:
        known = ", ".join(model.info.labels[:8])
        raise UnsupportedError(
            f"{_COMMAND} needs a model trained on natural language inference, with a label called entailment; "
            f"this one has: {known}"
        )
    named = (index for index, name in enumerate(names) if name.startswith("contra"))
    # Models of two labels call the other one "not_entailment".
    return entailment, next(named, len(names) - 1 if entailment == 0 else 0)


def _against(logits: NDArray[np.float64], entailment: int, contradiction: int) -> NDArray[np.float64]:
    found: NDArray[np.float64] = softmax(logits[:, [contradiction, entailment]])[:, 1]
    return found
