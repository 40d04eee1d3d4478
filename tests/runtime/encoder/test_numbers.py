"""What a model computes that is no number is refused by every task of encoders, and never a score."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from triform.runtime.bundle.manifest import EmbeddingInfo
from triform.runtime.encoder.classification import classify, next_sentence
from triform.runtime.encoder.fill_mask import fill_mask
from triform.runtime.encoder.reranking import rerank
from triform.runtime.encoder.vectors.embedding import embed, embedding_matrix
from triform.runtime.encoder.zero_shot import zero_shot
from triform.runtime.errors import BundleError
from triform.runtime.text.rows import TokenRow, token_batch

MASK = 3


class Reader:
    """Two tokens a text, of which the second is the mask."""

    max_length = 8
    tokenizer = SimpleNamespace(id_to_token=lambda token: f"<{token}>", decode=lambda ids, skip_special_tokens: "text")

    def stream(self, texts):
        return (TokenRow([1, MASK], [0, 0]) for _ in texts)

    def read(self, texts, *, first=1):
        return list(self.stream(texts))

    def read_batch(self, texts, *, first=1):
        return token_batch([[1, MASK]] * len(texts), [[0, 0]] * len(texts))


class Step:
    """Gives the numbers listed for each text."""

    outputs = ("sentence_embedding",)
    size = SimpleNamespace(texts=2)

    def __init__(self, table):
        self.table = np.array(table, np.float32)

    def in_batches(self, rows, outputs):
        return ((row,) for _, row in zip(rows, self.table, strict=True))

    def run(self, rows, outputs, positions):
        return [(row[None],) for _, row in zip(rows, self.table, strict=True)]

    def vectors(self, batch, output, prompt_length):
        rows, self.table = self.table[: len(batch.lengths)], self.table[len(batch.lengths) :]
        return rows


def encoder(table, labels=("entailment", "contradiction")):
    tokens = SimpleNamespace(mask=MASK, pad=0)
    embedding = EmbeddingInfo(dimension=2, pooling="mean", normalized=False, prompts={}, default_prompt=None)
    return SimpleNamespace(
        require=lambda *_: None,
        reader=Reader,
        step=Step(table),
        manifest=SimpleNamespace(task="any", tokens=tokens, tokenizer=None),
        info=SimpleNamespace(
            labels=labels, problem_type=None, relevance=None, embedding=embedding, contrast=None, boxes=None
        ),
    )


TASKS = {
    "classify": lambda table: list(classify(encoder(table), ["a", "b"])),
    "next-sentence": lambda table: list(next_sentence(encoder(table), [("a", "b"), ("c", "d")])),
    "zero-shot": lambda table: list(zero_shot(encoder(table), ["a"], ["x", "y"])),
    "rerank": lambda table: list(rerank(encoder([row[:1] for row in table], ("relevance",)), "a", ["b", "c"])),
    "fill-mask": lambda table: list(fill_mask(encoder(table), ["a", "b"], top_k=2)),
    "embed": lambda table: list(embed(encoder(table), ["a", "b"])),
    "matrix": lambda table: embedding_matrix(encoder(table), ["a", "b"]),
}


@pytest.mark.parametrize("task", TASKS)
def test_what_is_no_number_is_refused(task):
    assert len(TASKS[task]([[0.5, 1.0], [2.0, -1.0]])) in (1, 2)
    for value in (np.nan, np.inf):
        for place in range(2):
            table = [[0.5, 1.0], [2.0, -1.0]]
            table[place][0] = value
            with pytest.raises(BundleError, match="results that are not numbers"):
                TASKS[task](table)
