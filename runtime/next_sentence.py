"""Whether one text follows another: the second thing BERT was trained for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from triform.runtime.classification import softmax
from triform.runtime.encoder import Encoder
from triform.runtime.rows import Pair


def next_sentence(model: Encoder, pairs: Iterable[Pair]) -> Iterator[float]:
    """The probability that the second text of each pair follows the first.

    Of the graph's two logits the first stands for "is next" (Devlin et al. 2018, https://arxiv.org/abs/1810.04805;
    transformers' BertForNextSentencePrediction numbers them so).

    Args:
        model: a next-sentence-prediction bundle.
        pairs: any number of pairs of texts.

    Yields:
        for each pair, from 0 to 1.

    Raises:
        UnsupportedError: the bundle is for another task.
        InputError: a text cannot be read.
        TriformError: onnxruntime failed.
    """
    model.require("next-sentence", "next-sentence-prediction")
    for (logits,) in model.step.in_batches(model.reader().stream(pairs), ("logits",)):
        yield float(softmax(logits)[0])
