"""Drawings of frontiers: beside a bundle, or refused in one line before the export."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from PIL import Image

from triform.cli.main import run
from triform.export import frontier_plot
from triform.export.frontier_plot import check_plot, plot_frontier
from triform.export.options import ExportOptions
from triform.export.report import FrontierPoint, Report
from triform.runtime.bundle.export_record import Parity
from triform.runtime.errors import InputError, UnsupportedError

GOAL = ExportOptions(target_bits=5.0)


def report(points):
    return Report(Path("bundle"), {}, 0, 0, Parity(0, 0, 0, 0, 1, 1), {}, frontier=points)


def test_a_frontier_is_drawn(tmp_path):
    points = (
        FrontierPoint(10**6, 4.5, 0.1), FrontierPoint(2 * 10**6, 6.0, 0.01), FrontierPoint(10**6, 4.5, 0.1, 0.08),
        FrontierPoint(2 * 10**6, 6.0, 0.01, chosen=True),
    )  # fmt: skip
    plot_frontier(report(points), tmp_path / "frontier.png")
    with Image.open(tmp_path / "frontier.png") as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(10**6)) > 10


def test_an_export_without_a_goal_has_nothing_to_draw(tmp_path):
    with pytest.raises(InputError, match="was exported without a goal"):
        plot_frontier(report(()), tmp_path / "frontier.png")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.png", ExportOptions(), "`plot` draws the frontier of a goal; give one of `target_size`, `target_bits`"),
        ("a.svg", GOAL, "`plot` writes PNG files"),
        ("bundle/a.png", GOAL, "is in the bundle, which holds no drawings"),
        ("none/a.png", GOAL, "is in a folder that does not exist"),
    ],
)
def test_drawings_that_cannot_be_made_are_refused_before(tmp_path, name, options, message):
    with pytest.raises(InputError, match=message):
        check_plot(tmp_path / name, tmp_path / "bundle", options)


def test_what_draws_must_be_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(frontier_plot, "find_spec", lambda name: None)
    with pytest.raises(UnsupportedError, match="needs the package matplotlib"):
        check_plot(tmp_path / "a.png", tmp_path / "bundle", GOAL)
    monkeypatch.setattr(frontier_plot, "find_spec", lambda name: ModuleSpec(name, None))
    check_plot(tmp_path / "a.png", tmp_path / "bundle", GOAL)


def test_the_command_draws_beside_the_bundle(checkpoint, tmp_path, capsys):
    command = ["export", str(checkpoint), str(tmp_path / "bundle"), "--target-bits", "6", "--plot"]
    assert run([*command, str(tmp_path / "bundle" / "a.png")]) == 2
    assert "--plot" in capsys.readouterr().err
    assert run([*command, str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").is_file()
    assert not list((tmp_path / "bundle").glob("*.png"))
