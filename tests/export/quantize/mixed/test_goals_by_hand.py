"""Points of a frontier by hand: sizes in words, which meets a goal, how few are tried, what is counted as the rest."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx_ir as ir
import pytest

from triform.export.graph.experts import EXPERTS
from triform.export.options import ExportOptions
from triform.export.quantize.mixed.allocation import Choice, Point
from triform.export.quantize.mixed.experts import check_has_no_experts
from triform.export.quantize.mixed.goals import (
    Frontier,
    Loss,
    choose_point,
    describe_point,
    frontier_of,
    size_of_rest,
)
from triform.export.quantize.mixed.search import smallest_within
from triform.runtime.errors import InputError, UnsupportedError

BITS = (3, 4, 5, 6, 8)


def points(*sizes):
    """Of as many bits as there are sizes; damage falls by a half."""
    return [Point(size, 2.0**-i, {"a": Choice(BITS[i], 32, size, 2.0**-i)}) for i, size in enumerate(sizes)]


def smallest_that_holds(row, holds, worthwhile):
    """Of losses that tell nothing but on which side of the limit they are."""
    return smallest_within(row, lambda point: 0.0 if holds(point) else 1.0, 0.5, worthwhile)


def clock():
    return SimpleNamespace(notes=[], frontier=[])


# 1000 weights: 3.2 to 8 bits each.
FRONTIER = Frontier(points(400, 500, 700, 800, 1000), 1000, 2_000_000, "KL")


def chosen(measure=None, frontier=FRONTIER, **goal):
    notes = clock()
    return choose_point(frontier, ExportOptions(**goal), measure, notes), notes


@pytest.mark.parametrize(
    ("goal", "size"),
    [
        ({"target_bits": 3.2}, 400), ({"target_bits": 4.0}, 500), ({"target_bits": 5.5}, 500),
        ({"target_bits": 5.6}, 700),
        ({"target_bits": 16.0}, 1000), ({"target_size": 2_000_400}, 400), ({"target_size": 2_000_699}, 500),
        ({"target_size": 2_000_700}, 700), ({"target_size": 10**9}, 1000),
    ],
)  # fmt: skip
def test_the_best_point_within_a_target(goal, size):
    assert chosen(**goal)[0].size == size


def test_targets_that_are_too_small_say_the_least():
    with pytest.raises(InputError) as caught:
        chosen(target_bits=3.19)
    assert str(caught.value) == "`target_bits` is too small: this model takes at least 3.20"
    # Rounded up: what is said must fit.
    with pytest.raises(InputError, match=r"at least 3\.21$"):
        chosen(frontier=Frontier(points(401), 1000, 0, "KL"), target_bits=3.2)
    with pytest.raises(InputError, match=r"^`target_size` is too small: this model takes at least 2\.1"):
        chosen(target_size=2_000_399)


def test_a_model_without_matrices_has_no_goal():
    for goal in ({"target_size": 10**6}, {"target_bits": 8.0}, {"max_loss": 0.1}):
        with pytest.raises(UnsupportedError, match=rf"^`{next(iter(goal))}` has no matrix of this model to choose for"):
            chosen(frontier=Frontier([Point(0, 0.0, {})], 0, 5000, "KL"), **goal)


def test_what_a_report_gets():
    point, notes = chosen(target_bits=5.0)
    assert notes.notes[0] == "frontier: 2.0 MB, 3.20 bits per weight, estimated KL 1.0000"
    assert notes.notes[-1] == "chosen: 4.00 bits per weight, 1 in 4 bit in blocks of 32"
    last = notes.frontier[-1]
    assert (last.size, last.bits, last.damage, last.loss, last.chosen) == (2_000_500, 4.0, 0.5, None, True)
    assert [entry.chosen for entry in notes.frontier[:-1]] == [False] * 5
    assert describe_point(point, 4).formats == {"4 bit in blocks of 32": 1}


def test_points_at_even_distances():
    row = Frontier(points(0, 10, 20, 30, 100), 1, 0, "KL")
    # At 0, 50 and 100: the largest that fits.
    assert [point.size for point in row.at_even_distances(3)] == [0, 30, 100]
    assert [point.size for point in row.at_even_distances(2)] == [0, 100]
    assert [point.size for point in row.at_even_distances(11)] == [0, 10, 20, 30, 100]


def measured(shares):
    """Losses by size, and what was measured, with the points that were kept."""
    calls = []

    def measure(point, kept):
        calls.append((point.size, [item.size for item in kept]))
        return Loss(shares[point.size], f"loses {shares[point.size]:g}")

    return measure, calls


def test_the_smallest_point_within_a_loss():
    frontier = Frontier(FRONTIER.points, 1000, 0, "KL")
    measure, calls = measured({400: 0.4, 500: 0.2, 700: 0.1, 800: 0.05, 1000: 0.0})
    point, notes = chosen(measure, frontier, max_loss=0.1)
    # Exactly as much is kept. 700 is the middle of 400 and 1000; damages say that the next one below does not hold.
    assert point.size == 700
    assert calls[0] == (700, []) and all(kept == [700] for _, kept in calls[1:])
    assert [size for size, _ in calls[1:]] == [500]
    assert "measured: 0.0 MB, 5.60 bits per weight: loses 0.1" in notes.notes
    assert [entry.loss for entry in notes.frontier if entry.loss is not None] == [0.1, 0.2]


def test_a_saving_that_is_not_worthwhile_is_not_looked_for():
    """0.5 % of the smallest bundle, 5000 bytes here, with all that is not in matrices."""
    frontier = Frontier(points(0, 5000, 10_000), 1000, 1_000_000, "KL")
    measure, calls = measured({0: 0.0, 5000: 0.0, 10_000: 0.0})
    assert chosen(measure, frontier, max_loss=0.1)[0].size == 5000
    assert calls == [(5000, [])]
    frontier = Frontier(points(0, 5001, 10_002), 1000, 1_000_000, "KL")
    measure, calls = measured({0: 0.0, 5001: 0.0, 10_002: 0.0})
    assert chosen(measure, frontier, max_loss=0.1)[0].size == 0


def test_points_of_about_one_size_are_tried_once():
    """None holds below the step of a large matrix, from 409 to 700; the largest of those below tells it."""
    row, tried = [Point(size, 1.0, {}) for size in (400, 402, 405, 407, 409, 700, 1000)], []

    def holds(point):
        tried.append(point.size)
        return point.size >= 700

    assert smallest_that_holds(row, holds, 10).size == 700
    assert tried == [700, 409]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("worthwhile", [0, 15])
def test_bisection_finds_every_point(count, worthwhile):
    row = points(*range(0, 50, 10))[:count] if count <= 5 else [Point(10 * i, 0.0, {}) for i in range(count)]
    for first in range(len(row)):
        found = smallest_that_holds(row, lambda point, first=first: point.size >= 10 * first, worthwhile)
        assert 0 <= found.size - 10 * first <= worthwhile
    assert smallest_that_holds(row, lambda _: False, worthwhile) is None
    assert smallest_that_holds([], lambda _: True, worthwhile) is None


def test_what_a_bundle_takes_beside_its_matrices(tmp_path):
    """Files, other weights, 800 for a node, 12288 for a matrix, and 60000 for the manifest."""
    (tmp_path / "tokenizer.json").write_bytes(b"x" * 70)
    values = {
        name: ir.val(name, const_value=ir.tensor(np.zeros(size, np.float32))) for name, size in (("a", 100), ("b", 5))
    }
    node = ir.node("Add", [values["a"], values["b"]])
    graph = ir.Graph([], [node.outputs[0]], nodes=[node], initializers=list(values.values()), opset_imports={"": 17})
    model = ir.Model(graph, ir_version=10)
    assert size_of_rest([model], {"a"}, tmp_path) == 70 + 5 * 4 + 800 + 12_288 + 60_000
    assert size_of_rest([model], set(), tmp_path) == 70 + 105 * 4 + 800 + 60_000
    found = frontier_of([model], {"a": 40}, {"a": [Choice(4, 32, 60, 1.0), Choice(8, 32, 90, 0.5)]}, tmp_path, "KL")
    assert (found.weights, found.rest) == (40, 70 + 20 + 800 + 12_288 + 60_000)
    assert [(point.size, point.damage) for point in found.points] == [(60, 1.0), (90, 0.5)]
    assert found.time(found.points[0]) is None


def test_the_time_of_products_beside_that_in_blocks_of_64(tmp_path):
    """Of two matrices of 40 weights that take 40 and 60 in all; nothing is known of a third."""
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 17}), ir_version=10)
    sizes = {"a": 40, "b": 40, "c": 1000}
    choices = {"a": [Choice(4, 64, 60, 1.0, 40.0)], "b": [Choice(8, 32, 90, 0.5, 60.0)], "c": [Choice(8, None, 5, 1.0)]}
    found = frontier_of([model], sizes, choices, tmp_path, "KL")
    assert found.time(found.points[0]) == found.record(found.points[0]).time == 1.25
    point, notes = chosen(frontier=found, target_size=10**6)
    assert point == found.points[0]
    assert all(note.endswith(", products take 1.25 times as long as in int4") for note in notes.notes)


def test_mixtures_of_experts_that_are_no_decoders_are_not_counted():
    for operator, refused in ((EXPERTS, True), ("MatMul", False)):
        value = ir.val("x", ir.DataType.FLOAT, [1])
        node = ir.node(operator, [value], domain="com.microsoft")
        graph = ir.Graph([value], [node.outputs[0]], nodes=[node], opset_imports={"": 17})
        if refused:
            with pytest.raises(UnsupportedError, match=r"^`max_loss` is for mixtures of experts that are decoders; "):
                check_has_no_experts(ir.Model(graph, ir_version=10), ExportOptions(max_loss=0.1))
        else:
            check_has_no_experts(ir.Model(graph, ir_version=10), ExportOptions(max_loss=0.1))
