"""Batches of rows that must not be padded."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from triform.runtime.bundle.manifest import GraphInfo, Quantization, TensorInfo
from triform.runtime.graphs.encoder_batch import CPU_BATCH, GPU_BATCH, EncoderStep, batch_size
from triform.runtime.text.rows import TokenBatch, TokenRow

GRAPH = GraphInfo(
    "encoder.onnx", None,
    [TensorInfo("input_ids", "int64", ["batch", "sequence"])],
    [
        TensorInfo("ids", "float32", ["batch", "sequence"]), TensorInfo("sums", "float32", ["batch"]),
        TensorInfo("ends", "float32", ["batch", 2]),
    ],
    {}, Quantization("none"),
)  # fmt: skip


class Session:
    """Gives back what it is fed, and keeps the shapes."""

    def __init__(self):
        self.shapes = []

    def run(self, outputs, arrays):
        ids = arrays["input_ids"].astype(np.float32)
        self.shapes.append(ids.shape)
        ends = np.stack([ids[:, 0], ids.sum(1)], axis=1)
        return [{"ids": ids, "sums": ids.sum(1), "ends": ends}[name] for name in outputs]


def row(length, number):
    return TokenRow([number + 1] * length, [0] * length)


@pytest.mark.parametrize("equal", [True, False])
def test_batches_have_no_padding(equal):
    generator = random.Random(0)
    rows = [row(generator.choice((4, 5, 9, 200, 700)), number) for number in range(300)]
    session = Session()
    step = EncoderStep(session, GRAPH, 0, equal_lengths=equal)
    found = list(step.in_batches(iter(rows), ["ids", "sums"]))
    for one, (ids, sums) in zip(rows, found, strict=True):
        assert ids.tolist() == one.ids
        assert sums == sum(one.ids)
    assert all(batch * length <= CPU_BATCH.tokens for batch, length in session.shapes)
    read, given = sum(batch * length for batch, length in session.shapes), sum(len(one.ids) for one in rows)
    assert read == given if equal else read > given
    if equal:
        by_length = {length: sum(len(one.ids) == length for one in rows) for _, length in session.shapes}
        assert len(session.shapes) == sum(
            -(-count // (CPU_BATCH.tokens // length)) for length, count in by_length.items()
        )


@pytest.mark.parametrize(
    ("lengths", "shapes"), [((5, 3, 5, 8, 3), [(1, 8), (2, 3), (2, 5)]), ((3, 2), [(1, 2), (1, 3)]), ((2, 2), [(2, 2)])]
)
def test_a_run_of_rows_of_several_lengths(lengths, shapes):
    rows = [row(length, number) for number, length in enumerate(lengths)]
    session = Session()
    found = EncoderStep(session, GRAPH, 0, equal_lengths=True).run(rows, ["ids"])
    assert [ids.tolist() for (ids,) in found] == [one.ids for one in rows]
    assert sorted(session.shapes) == shapes


class Remembering(Session):
    """A session that keeps what it was fed."""

    def run(self, outputs, arrays):
        self.fed = {name: array.tolist() for name, array in arrays.items()}
        return super().run(outputs, arrays)


@pytest.mark.parametrize(("pad", "written"), [(9, 9), (0, 0), (None, 0)])
def test_shorter_texts_are_padded_with_the_token_for_it(pad, written):
    taken = [*GRAPH.inputs, TensorInfo("prompt_lengths", "int64", ["batch"])]
    session = Remembering()
    step = EncoderStep(session, replace(GRAPH, inputs=taken), pad)
    ids = np.array([1, 2, 3, 4])
    step.vectors(TokenBatch(ids, np.zeros_like(ids), np.array([1, 3])), "ends")
    assert session.fed == {"input_ids": [[2, 3, 4], [1, written, written]], "prompt_lengths": [0, 0]}
    step.vectors(TokenBatch(ids, np.zeros_like(ids), np.array([1, 3])), "ends", 5)
    assert session.fed["prompt_lengths"] == [5, 5]
    step.run([TokenRow([1], [0]), TokenRow([2, 3, 4], [0] * 3, prompt_length=2)], ["ids"])
    assert session.fed == {"input_ids": [[1, written, written], [2, 3, 4]], "prompt_lengths": [0, 2]}


@pytest.mark.parametrize("size", [CPU_BATCH, GPU_BATCH])
@pytest.mark.parametrize("equal", [True, False])
def test_vectors_of_many_texts(size, equal):
    generator = np.random.default_rng(0)
    lengths = generator.choice([0, 4, 5, 9, 200, 700], 300)
    ids = generator.integers(1, 100, lengths.sum())
    session = Session()
    step = EncoderStep(session, GRAPH, 0, equal_lengths=equal, size=size)
    vectors = step.vectors(TokenBatch(ids, np.zeros_like(ids), lengths), "ends")
    parts = np.split(ids, np.cumsum(lengths)[:-1])
    assert vectors.tolist() == [[part[0], part.sum()] if len(part) else [0, 0] for part in parts]
    assert all(batch * length <= size.tokens for batch, length in session.shapes)


def test_rows_that_fill_a_batch_are_run_alone_and_those_of_one_token_together():
    """Also rows that have more tokens than a batch, which holds 1024."""
    for length, runs in ((1023, [1] * 3), (1025, [1] * 3), (1, [3]), (512, [2, 1]), (513, [1] * 3)):
        session = Session()
        list(EncoderStep(session, GRAPH, 0).in_batches(iter([row(length, number) for number in range(3)]), ["ids"]))
        assert [batch for batch, _ in session.shapes] == runs
    session = Session()
    list(EncoderStep(session, GRAPH, 0).in_batches(iter([row(1, number) for number in range(1024)]), ["ids"]))
    assert session.shapes == [(1024, 1)]


class OpenSession(Session):
    """One that knows its providers."""

    def __init__(self, *providers):
        super().__init__()
        self.providers = list(providers)

    def get_providers(self):
        return self.providers


def test_a_gpu_gets_large_batches():
    assert batch_size(OpenSession("CUDAExecutionProvider", "CPUExecutionProvider")) is GPU_BATCH
    assert batch_size(OpenSession("CPUExecutionProvider")) is CPU_BATCH
