"""Scores a user's own labels for texts, with a model trained on natural language inference."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from triform.runtime.arithmetic import softmax
from triform.runtime.encoder.classification import label_logits
from triform.runtime.encoder.opened import OpenEncoder
from triform.runtime.errors import InputError, UnsupportedError
from triform.runtime.printable import quoted

HYPOTHESIS_TEMPLATE = "This example is {}."
_COMMAND = "classify with labels of your own"


def zero_shot(
    model: OpenEncoder,
    texts: Iterable[str],
    labels: Sequence[str],
    *,
    template: str = HYPOTHESIS_TEMPLATE,
    multi_label: bool = False,
) -> Iterator[list[tuple[str, float]]]:
    """Score how well each label fits each text, as transformers' zero-shot-classification pipeline does.

    The model reads each text together with each label's hypothesis. One difference from transformers: it finds the
    model's label for entailment by name, and assumes that the first or last label is the one for contradiction; here
    both are found by name.

    Args:
        model: a text-classification bundle of a model trained on natural language inference.
        texts: any number of texts.
        labels: at least one.
        template: the hypothesis, with {} for the label.
        multi_label: whether several labels may fit a text; each label then has a probability of its own.

    Yields:
        for each text, (label, score) of every label, the highest score first. The scores sum to 1 unless
        `multi_label`; a single label has its own probability either way.

    Raises:
        UnsupportedError: the bundle's model was not trained for this.
        BundleError: the bundle does not name its labels.
        InputError: there is no label, the template has no {}, or a text cannot be read.
        TriformError: onnxruntime failed.
    """
    hypotheses = _hypotheses(labels, template)
    entailment, contradiction = _find_labels(model)
    pairs = ((text, hypothesis) for text in texts for hypothesis in hypotheses)
    logits = label_logits(model, pairs, _COMMAND)
    while group := list(islice(logits, len(labels))):
        rows = np.stack(group).astype(np.float64)
        if multi_label or len(labels) == 1:
            scores = softmax(rows[:, [contradiction, entailment]])[:, 1]
        else:
            scores = softmax(rows[:, entailment])
        yield sorted(zip(labels, scores.tolist(), strict=True), key=lambda pair: pair[1], reverse=True)


def _hypotheses(labels: Sequence[str], template: str) -> list[str]:
    if not labels:
        raise InputError("give at least one label")
    for label in labels:
        if not isinstance(label, str):
            raise InputError(f"the label {quoted(label)} is not a text")
    try:
        hypotheses = [template.format(label) for label in labels]
    except (LookupError, ValueError, AttributeError):
        hypotheses = [template]
    if template in hypotheses:
        raise InputError(f"the hypothesis template {template!r} must have one {{}}, where the label goes")
    return hypotheses


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
    # Models with two labels call the second "not_entailment".
    return entailment, next(named, len(names) - 1 if entailment == 0 else 0)
