"""Draws the frontier of an export to a goal: sizes against estimated damage, and what was measured."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from triform.export.options import ExportOptions
from triform.export.report import FrontierPoint, Report
from triform.runtime.errors import InputError, UnsupportedError, option


def check_plot(path: Path, bundle: Path, options: ExportOptions) -> None:
    """Refuse, before an export, a drawing that could not be made after it.

    Raises:
        InputError: the export has no goal, or the file would be in the bundle or in no folder, or is no PNG.
        UnsupportedError: matplotlib is not installed.
    """
    if not options.goals:
        names = ", ".join(option(name) for name in ("target_size", "target_bits", "max_loss"))
        raise InputError(f"{option('plot')} draws the frontier of a goal; give one of {names}")
    if path.suffix.lower() != ".png":
        raise InputError(f"{option('plot')} writes PNG files; {path} must end in .png")
    if path.absolute().is_relative_to(bundle.absolute()):
        raise InputError(f"{option('plot')} {path} is in the bundle, which holds no drawings; write it beside {bundle}")
    if not path.absolute().parent.is_dir():
        raise InputError(f"{option('plot')} {path} is in a folder that does not exist; make it first")
    if find_spec("matplotlib") is None:
        raise UnsupportedError(f"{option('plot')} needs the package matplotlib; install it, or leave the option out")


def plot_frontier(report: Report, path: Path) -> None:
    """Write a PNG of an export's frontier.

    Args:
        report: of an export with a goal.
        path: of the file, which is replaced if it exists.

    Raises:
        InputError: the export had no goal, or the file cannot be written.
    """
    # Slow to import, and not needed by most exports. Figures are made without pyplot, which would look for a display.
    from matplotlib.figure import Figure

    if not report.frontier:
        raise InputError(f"{report.bundle} was exported without a goal, so there is no frontier to draw")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="bundle (MB)", ylabel="loss", yscale="log", title=report.bundle.name)
    estimated = [point for point in report.frontier if point.loss is None and not point.chosen and point.damage > 0]
    measured = [point for point in report.frontier if point.loss is not None and point.loss > 0]
    axes.plot(_megabytes(estimated), [point.damage for point in estimated], "-", label="damage, estimated")
    if measured:
        axes.plot(_megabytes(measured), [point.loss or 0 for point in measured], "o", label="loss, measured")
    for point in report.frontier:
        if point.chosen:
            axes.axvline(point.size / 1e6, linestyle=":", label="chosen")
    axes.legend()
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None


def _megabytes(points: list[FrontierPoint]) -> list[float]:
    return [point.size / 1e6 for point in points]
