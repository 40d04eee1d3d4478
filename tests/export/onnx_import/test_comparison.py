"""How an imported graph is compared with the original, on stand-ins for both: what differs is named."""

from __future__ import annotations

import numpy as np
import pytest

from triform.export.checkpoint.sentence.sentence_transformers import SentenceModules
from triform.export.onnx_import.comparison import batch_effect, check_same, longest_row, samples_of
from triform.runtime.errors import ExportError

PAD = 9
SAMPLES = [
    {"input_ids": np.array([1, 2, 3]), "attention_mask": np.array([1, 1, 1])},
    {"input_ids": np.array([4]), "attention_mask": np.array([1])},
]


class Runner:
    """Gives what functions of the arrays give, and keeps what it was fed."""

    def __init__(self, functions, types=None, ragged=(), longest=None):
        self.functions, self.ragged, self.longest, self.fed = functions, ragged, longest, []
        self.inputs = types or dict.fromkeys(("input_ids", "attention_mask"), "tensor(int64)")

    def run(self, arrays):
        self.fed.append(arrays)
        if self.longest is not None and arrays["input_ids"].shape[1] > self.longest:
            raise ExportError("it has positions for fewer")
        return {name: function(arrays) for name, function in self.functions.items()}


def states(arrays):
    """(batch, sequence, 2)"""
    return arrays["input_ids"][..., None] * np.array([1.0, -2.0], np.float32)


def sums(arrays):
    return (arrays["input_ids"] * arrays["attention_mask"]).sum(1, keepdims=True).astype(np.float32)


def changed(function, by):
    def other(arrays):
        values = function(arrays).copy()
        values.flat[-1] += by
        return values

    return other


@pytest.mark.parametrize(
    ("by", "same"), [(0.0, True), (0.9e-3, True), (1.1e-3, False), (np.nan, False), (np.inf, False)]
)
def test_a_difference_above_a_ten_thousandth_of_the_largest_number(by, same):
    """The largest sum is 10."""
    samples = [{**SAMPLES[0], "input_ids": np.array([1, 2, 7])}, SAMPLES[1]]
    original, imported = Runner({"logits": sums}), Runner({"logits": changed(sums, by)})
    if same:
        check_same(original, imported, samples, PAD, None)
        assert original.fed[0]["input_ids"].tolist() == [[1, 2, 7], [4, PAD, PAD]]
        assert original.fed[0]["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    else:
        with pytest.raises(ExportError) as caught:
            check_same(original, imported, samples, PAD, None)
        assert (
            str(caught.value)
            == "the output logits of the imported graph differs from the original's; report this model"
        )


@pytest.mark.parametrize(("by", "same"), [(0.0, True), (0.0001, True), (0.004, False)])
def test_an_output_in_half_floats_is_rounded_once(by, same):
    """The numbers of half floats between 2 and 4 are 2 ** -9 apart, so that rounding moves a number by 2 ** -10."""

    def original(arrays):
        return np.full((2, 3), 2 + 2**-9, np.float16)

    def imported(arrays):
        return np.full((2, 3), 2 + 2**-9 + 2**-10 * 0.999 + by, np.float32)

    runners = Runner({"logits": original}), Runner({"logits": imported})
    if same:
        check_same(*runners, SAMPLES, PAD, None)
    else:
        with pytest.raises(ExportError, match="the output logits"):
            check_same(*runners, SAMPLES, PAD, None)
    # Floats are not rounded.
    exact = Runner({"logits": lambda arrays: original(arrays).astype(np.float32)})
    with pytest.raises(ExportError, match="the output logits"):
        check_same(exact, runners[1], SAMPLES, PAD, None)


def test_another_shape():
    original, imported = Runner({"logits": sums}), Runner({"logits": lambda arrays: sums(arrays)[:, 0]})
    with pytest.raises(ExportError, match="the output logits of the imported graph differs"):
        check_same(original, imported, SAMPLES, PAD, None)


def test_types_that_a_graph_takes():
    types = {"input_ids": "tensor(int32)", "attention_mask": "tensor(float)"}
    original = Runner({"logits": sums}, types)
    check_same(original, Runner({"logits": sums}), SAMPLES, PAD, None)
    assert [array.dtype for array in original.fed[0].values()] == [np.int32, np.float32]
    original = Runner({"logits": lambda arrays: sums({**SAMPLES_PADDED})}, {"input_ids": "tensor(int16)",
                      "attention_mask": "tensor(bool)"})  # fmt: skip
    check_same(original, Runner({"logits": sums}), SAMPLES, PAD, None)
    assert [array.dtype for array in original.fed[0].values()] == [np.int64, np.bool_]


SAMPLES_PADDED = {
    "input_ids": np.array([[1, 2, 3], [4, PAD, PAD]]), "attention_mask": np.array([[1, 1, 1], [1, 0, 0]]),
}  # fmt: skip


@pytest.mark.parametrize("normalize", [False, True])
def test_pooling_that_was_added(normalize):
    """The mean of the tokens' vectors, which are of one direction."""

    def pooled(arrays):
        mean = sums(arrays) / arrays["attention_mask"].sum(1, keepdims=True) * np.array([1.0, -2.0], np.float32)
        return mean / np.linalg.norm(mean, axis=1, keepdims=True) if normalize else mean

    modules = SentenceModules(normalize=normalize)
    imported = Runner({"sentence_embedding": pooled, "last_hidden_state": states})
    check_same(Runner({"token_embeddings": states}), imported, SAMPLES, PAD, modules)
    wrong = Runner({"sentence_embedding": changed(pooled, 0.1), "last_hidden_state": states})
    with pytest.raises(ExportError, match="the output sentence_embedding"):
        check_same(Runner({"last_hidden_state": states}), wrong, SAMPLES, PAD, modules)


def test_logits_are_picked_at_the_first_two_tokens():
    def picked(arrays):
        assert arrays["logits_positions"].tolist() == [[0, 1], [0, 1]]
        return np.take_along_axis(states(arrays), arrays["logits_positions"][..., None], 1)

    types = dict.fromkeys(("input_ids", "attention_mask", "logits_positions"), "tensor(int64)")
    check_same(Runner({"logits": states}), Runner({"logits": picked}, types), SAMPLES, PAD, None)
    with pytest.raises(ExportError, match="the output logits"):
        check_same(Runner({"logits": states}), Runner({"logits": changed(picked, 1)}, types), SAMPLES, PAD, None)


def test_what_a_batch_does_to_a_row():
    """Nothing, or the share of the row's largest number; the second row's is 4."""
    assert batch_effect(Runner({"logits": sums}), SAMPLES, PAD) == 0.0

    def with_padding(share):
        return lambda arrays: sums(arrays) + share * (arrays["attention_mask"] == 0).sum(1, keepdims=True)

    assert batch_effect(Runner({"logits": with_padding(0.5)}), SAMPLES, PAD) == pytest.approx(2 * 0.5 / 4)
    # A thousandth is rounding.
    assert batch_effect(Runner({"logits": with_padding(0.0019)}), SAMPLES, PAD) == 0.0
    assert batch_effect(Runner({"logits": with_padding(0.0021)}), SAMPLES, PAD) == pytest.approx(0.00105)


def test_of_outputs_by_token_the_first_token_counts():
    def other(arrays):
        values = states(arrays).copy()
        values[:, 1:] += values.shape[1]
        return values

    assert batch_effect(Runner({"last_hidden_state": other}, ragged=("last_hidden_state",)), SAMPLES, PAD) == 0.0
    picks = dict.fromkeys(("input_ids", "attention_mask", "logits_positions"), "tensor(int64)")
    runner = Runner({"logits": lambda arrays: states(arrays)[:, :1]}, picks)
    assert batch_effect(runner, SAMPLES, PAD) == 0.0
    assert [fed["logits_positions"].tolist() for fed in runner.fed] == [[[0], [0]], [[0]], [[0]]]


@pytest.mark.parametrize("alone", [True, False])
def test_what_is_no_number_in_a_batch_or_alone(alone):
    def broken(arrays):
        return np.where(len(arrays["input_ids"]) == 1 if alone else len(arrays["input_ids"]) > 1, np.nan, sums(arrays))

    with pytest.raises(ExportError, match=r"^the output logits of the graph is not finite for some texts; report"):
        batch_effect(Runner({"logits": broken}), SAMPLES, PAD)


@pytest.mark.parametrize(("longest", "expected"), [(512, 512), (600, 512), (511, 510), (510, 510)])
def test_the_longest_row(longest, expected):
    runner = Runner({}, longest=longest)
    assert longest_row(runner, ["input_ids", "attention_mask", "token_type_ids"][:2], 512, 2, 7) == expected
    assert {name: np.unique(array).tolist() for name, array in runner.fed[0].items()} == {
        "input_ids": [7], "attention_mask": [1],
    }  # fmt: skip
    assert runner.fed[0]["input_ids"].shape == (1, 512)


def test_a_graph_that_reads_neither_length():
    types = dict.fromkeys(("input_ids", "token_type_ids"), "tensor(int64)")
    runner = Runner({}, types, longest=509)
    with pytest.raises(ExportError) as caught:
        longest_row(runner, ["input_ids", "token_type_ids"], 512, 2, 7)
    said = "the graph cannot read 512 tokens, as its config says: it has positions for fewer"
    assert str(caught.value) == said and not runner.fed[0]["token_type_ids"].any()


def test_samples_of_different_lengths():
    """A whole row, a half, a third, a quarter; no fewer than eight tokens."""
    asked = []

    def tokenizer(text, truncation, max_length):
        asked.append((truncation, max_length))
        return {"input_ids": [1] * max_length, "attention_mask": [1] * max_length}

    samples = samples_of(tokenizer, ["input_ids", "token_type_ids"], 30)
    assert asked == [(True, 30), (True, 15), (True, 10), (True, 8)]
    assert [list(sample) for sample in samples] == [["input_ids"]] * 4
    assert [len(sample["input_ids"]) for sample in samples] == [30, 15, 10, 8]
    assert samples[0]["input_ids"].dtype == np.int64
