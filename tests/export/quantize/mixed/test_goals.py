"""Exports of a small decoder to a goal: it is met, or refused in one line."""

from __future__ import annotations

import json
import math

import onnx
import pytest
import torch
from onnx import numpy_helper

from triform.export.options import ExportOptions, bytes_of, share_of
from triform.export.pipeline import export
from triform.export.quantize.mixed.allocation import Choice, Point
from triform.export.quantize.mixed.goals import Frontier, Loss, choose_point, frontier_of
from triform.export.quantize.mixed.lowering import decoder_loss
from triform.export.quantize.mixed.moments import measure, predictions, product_modules
from triform.export.quantize.mixed.search import smallest_within
from triform.export.report import Clock
from triform.export.samples.texts import TokenWindows
from triform.runtime.bundle.export_record import QuantizedParity
from triform.runtime.errors import ExportError, InputError


@pytest.fixture(scope="module")
def mixed(checkpoint, tmp_path_factory):
    """Smaller than 6 bits a weight, which neither 4 bits nor 8 bits in every matrix would fill."""
    folder = tmp_path_factory.mktemp("mixed") / "bundle"
    return folder, export(str(checkpoint), folder, ExportOptions(target_bits=6.0))


def test_the_stored_matrices_take_at_most_the_bits_of_the_target(mixed):
    folder, _ = mixed
    model = onnx.load(folder / "decoder.onnx", load_external_data=False)
    sizes = {item.name: bytes_of_initializer(item) for item in model.graph.initializer}
    packed = json.loads((folder / "decoder.onnx.packed").read_text())
    sizes |= {
        name: math.prod(item["shape"]) * sum(width for width, _ in item["fields"]) // 8 for name, item in packed.items()
    }
    assert len(packed) > 0
    products = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    stored_names = {name for node in products for name in (node.input[1], node.input[3])}
    scales = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    stored_names |= {scales[node.input[2]] for node in products}
    # The head is tied to the embedding, so that the products' matrices are all that there are.
    weights = sum(
        next(item.i for item in node.attribute if item.name == "K")
        * next(item.i for item in node.attribute if item.name == "N")
        for node in products
    )
    bits = 8 * sum(sizes[name] for name in stored_names) / weights
    assert 5.0 < bits <= 6.0


def bytes_of_initializer(item):
    length = [int(entry.value) for entry in item.external_data if entry.key == "length"]
    return length[0] if length else numpy_helper.to_array(item).nbytes


def test_the_manifest_says_how_each_matrix_is_stored(mixed):
    folder, _ = mixed
    stored = json.loads((folder / "manifest.json").read_text())["graphs"]["decoder"]["quantization"]
    assert stored["scheme"] == "mixed"
    assert len(stored["products"]) == stored["matrices"] == sum(stored["formats"].values())
    assert set(stored["products"].values()) == set(stored["formats"])


def test_the_report_has_the_frontier(mixed):
    _, report = mixed
    assert sum("frontier: " in note for note in report.notes) >= 2
    assert report.scheme == "mixed"
    sizes = [point.size for point in report.frontier]
    assert sizes == sorted(sizes)
    chosen = [point for point in report.frontier if point.chosen]
    assert len(chosen) == 1
    assert 5.0 < chosen[0].bits <= 6.0


def test_a_whole_bundle_is_no_larger_than_its_target(checkpoint, tmp_path):
    target = 520_000
    report = export(str(checkpoint), tmp_path / "bundle", ExportOptions(target_size=target))
    assert report.size_after <= target


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ExportOptions(target_bits=3.0), "`target_bits` is too small: this model takes at least 3.[3-9]"),
        (ExportOptions(target_size=1000), "`target_size` is too small: this model takes at least 0"),
    ],
)
def test_a_target_that_is_too_small_is_refused(checkpoint, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        export(str(checkpoint), tmp_path / "bundle", options)
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target_bits": 5.0, "target_size": 10}, "cannot be used together"),
        ({"target_bits": 5.0, "quantize": "int4"}, "needs `quantize` auto"),
        ({"target_bits": 5.0, "block_size": 32}, "does not go with `target_bits`"),
        ({"target_bits": float("nan")}, "must be above 0"),
        ({"max_loss": 0.01, "target_bits": 5.0}, "`target_bits` and `max_loss` cannot be used together"),
        ({"max_loss": 0.0}, "`max_loss` must be above 0 and at most 100%, not 0%"),
        ({"max_loss": 1.5}, "`max_loss` must be above 0 and at most 100%, not 150%"),
        ({"max_loss": float("nan")}, "`max_loss` must be above 0"),
        ({"max_loss": 0.01, "quantize": "int8"}, "`max_loss` needs `quantize` auto"),
        ({"quantize": "mixed"}, "must be auto, none"),
    ],
)
def test_options_that_contradict_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        ExportOptions(**changes)


# Sizes in a row: 0, 10, 20, … 1000.
ROW = [Point(10 * index, 1.0, {"a": Choice(8, 16, 10 * index, 1.0)}) for index in range(101)]


def found(row, loss_of, most, worthwhile):
    """The smallest point within a loss, and the sizes that were tried."""
    tried = []

    def measure(point):
        tried.append(point.size)
        return loss_of(point)

    return smallest_within(row, measure, most, worthwhile), tried


@pytest.mark.parametrize("base", [0.0, 1.0])
def test_the_smallest_point_within_a_loss_is_found_in_few_trials(base):
    """Damages that are all the same tell nothing: after the first try four are led by them in vain."""
    point, tried = found(ROW, lambda point: base if point.size >= 370 else base + 1, base + 0.5, 0)
    assert point.size == 370
    # A bisection of 101 points takes at most 7.
    assert len(tried) <= 4 + 7


@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
@pytest.mark.parametrize("power", [0.5, 1.0, 1.5])
@pytest.mark.parametrize("first", [3, 50, 97])
def test_losses_that_are_like_the_damage_take_fewer_trials(factor, power, first):
    row = [Point(10 * index, 0.9**index, {}) for index in range(101)]
    point, tried = found(row, lambda point: factor * point.damage**power, factor * 0.9 ** (power * first) * 1.0001, 10)
    assert 0 <= point.size - 10 * first <= 10
    # The middle, the point that its loss points to, one that both point to, and two beside it.
    assert len(tried) <= 5


@pytest.mark.parametrize("loss", [1e-300, 1e300, math.inf])
def test_losses_of_any_size_are_looked_at(loss):
    row = [Point(10 * index, 0.9**index, {}) for index in range(101)]
    assert found(row, lambda point: 1e-12 if point is row[-1] else loss, 1e-9, 0)[0] is row[-1 if loss > 1 else 0]


def test_losses_that_go_another_way_than_the_damage_are_found_too():
    row = [Point(10 * index, 0.9**index, {}) for index in range(101)]
    for first in range(101):
        point, tried = found(row, lambda point: (1001 - point.size) ** 3, (1001 - 10 * first) ** 3, 0)
        assert point.size == 10 * first
        assert len(tried) <= 1 + 4 + 7


def test_what_is_not_worthwhile_is_not_looked_for():
    point, _ = found(ROW, lambda point: float(point.size < 370), 0.5, 100)
    assert 370 <= point.size <= 470


def test_the_first_and_the_last_point_are_tried():
    assert found(ROW, lambda _: 0.0, 0.5, 0)[0] is ROW[0]
    assert found(ROW, lambda point: float(point is not ROW[-1]), 0.5, 100)[0] is ROW[-1]
    assert found(ROW, lambda _: 1.0, 0.5, 100)[0] is None
    assert found(ROW, lambda _: math.nan, 0.5, 100)[0] is None


def test_a_loss_is_kept_and_measured(checkpoint, tmp_path):
    """The report's own comparison, of the finished bundle, is the same measurement."""
    report = export(str(checkpoint), tmp_path / "bundle", ExportOptions(max_loss=0.002))
    parity = report.parity.quantized
    assert math.exp(parity.mean_kl) <= 1.002
    growth = parity.perplexity_quantized / parity.perplexity_original - 1
    measured = [note for note in report.notes if note.startswith("measured: ")]
    assert any(f"{100 * growth:+.2f} % ± " in note and f"KL {parity.mean_kl:.4f}" in note for note in measured)
    assert all("tokens of the exporter's evaluation text" in note for note in measured)
    # Not simply the best that there is.
    chosen = next(point for point in report.frontier if point.chosen)
    assert chosen.size < max(point.size for point in report.frontier if point.loss is not None)


@pytest.mark.parametrize(
    ("kl", "growth", "loss"),
    [
        # e ** 0.01 - 1. The error of 1,000 tokens is sqrt(0.02 / 1000) = 0.0045.
        (0.01, -0.01, 0.01005),
        (0.01, 0.014, 0.01005),
        # 0.03 - 0.00447.
        (0.01, 0.03, 0.02553),
        (0.0, 0.0, 0.0),
        (-1e-9, 0.0, 0.0),
        (math.inf, 0.0, math.inf),
    ],
)
def test_the_loss_of_a_decoder(kl, growth, loss):
    assert decoder_loss(QuantizedParity(1.0, kl, 20.0, 20.0 * (1 + growth), 1000)).share == pytest.approx(
        loss, rel=1e-3
    )


@pytest.mark.parametrize(("kl", "perplexity"), [(math.nan, 20.0), (0.01, math.nan)])
def test_a_loss_without_a_number_is_none(kl, perplexity):
    assert math.isnan(decoder_loss(QuantizedParity(1.0, kl, 20.0, perplexity, 1000)).share)


def test_a_loss_that_nothing_keeps_is_refused_with_the_best_there_is():
    frontier = Frontier(ROW, weights=1000, rest=0, damage="KL")
    message = r"`max_loss` 1% cannot be kept by 8 bits or fewer: at 0\.0 MB, 8\.00 bits per weight, loses 1000; allow"
    with pytest.raises(InputError, match=message):
        choose_point(
            frontier, ExportOptions(max_loss=0.01), lambda point, _: Loss(0.02, f"loses {point.size}"), Clock(print)
        )


def test_a_loss_that_is_no_number_is_not_kept():
    with pytest.raises(InputError, match="cannot be kept"):
        choose_point(
            Frontier(ROW, 1000, 0, "KL"), ExportOptions(max_loss=1.0), lambda *_: Loss(float("nan"), ""), Clock(print)
        )


def test_shares_in_words():
    assert (share_of("1%"), share_of("0.5 %"), share_of(".25%")) == (0.01, 0.005, 0.0025)
    for text in ("1", "0.01", "-1%", "1%%", "nan%"):
        with pytest.raises(InputError, match="percentage such as 1%"):
            share_of(text)


def test_sizes_in_words():
    assert bytes_of("90MB") == bytes_of("90M") == 90_000_000
    assert bytes_of("1.5 GiB") == 3 * 2**29
    units = {"B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
    for unit, size in units.items():
        assert bytes_of(f"7{unit}") == bytes_of(f"7 {unit}") == 7 * size
    with pytest.raises(InputError, match="such as 90MB"):
        bytes_of("90 megabytes")


def test_the_moments_predict_the_divergence_of_a_small_change(tmp_path):
    """Half the squared change times the Fisher information is the divergence, to second order.

    One product, whose output is the logits, so that the information is known: for logits z it is diag(p) - p p'.
    """

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.config = type("Config", (), {"_attn_implementation": "eager"})()
            self.table, self.head = torch.nn.Embedding(12, 8), torch.nn.Linear(8, 12, bias=False)

        def set_attn_implementation(self, name):
            pass

        def get_input_embeddings(self):
            return self.table

        def forward(self, input_ids, use_cache):
            return type("Output", (), {"logits": self.head(self.table(input_ids))})()

    torch.manual_seed(0)
    model = Model()
    ids = torch.randint(0, 12, (4000,)).tolist()
    values = predictions(model, TokenWindows(ids, 500))
    moments = measure(model, product_modules(model), values, 4000, tmp_path).products[id(model.head.weight)]
    x = model.table.weight[torch.tensor(ids)].detach()
    p = model.head(x).softmax(-1).detach()
    squares = p * (1 - p)
    torch.testing.assert_close(moments.outputs, squares.mean(0), rtol=0.15, atol=0)
    expected = (x * squares.sum(-1, keepdim=True)).T @ x / len(x)
    assert (moments.inputs - expected).abs().max() < 0.1 * expected.abs().max()


@pytest.mark.parametrize("damage", [math.nan, math.inf])
def test_damages_that_are_no_numbers_are_refused(damage, tmp_path):
    """As of weights whose squares float32 cannot hold."""
    choices = {"plain": [Choice(4, 32, 10, 1.0)], "huge": [Choice(4, 32, 10, 1.0), Choice(8, 32, 20, damage)]}
    with pytest.raises(ExportError, match=r"^what rounding huge changes is no finite number: .*export with `quantize`"):
        frontier_of([], {"plain": 20, "huge": 20}, choices, tmp_path, "KL")
