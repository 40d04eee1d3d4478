"""Puts bundles of one decoder, and another engine's files of it, on one plot: size against loss.

    python -m benchmarks.frontier BUNDLE… --peer benchmarks/peers/smollm2-135m-llama.cpp.json --output frontier

writes frontier.png and frontier.json. What a bundle loses is in its manifest: each export compares on the same text.
The other engine is not run here; its points come from a JSON file with `engine`, `how` (they were measured) and
`points`, each with `name`, `size` in bytes, `kl` in nats, `perplexity` and `perplexity_original` on that same text.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure


def main() -> None:
    """Read the points, write them as JSON and as a plot, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--peer", action="append", type=Path, default=[])
    parser.add_argument("--output", type=Path, default=Path("frontier"))
    chosen = parser.parse_args()
    peers = [json.loads(path.read_text()) for path in chosen.peer]
    own = {"engine": "Triform", "how": "the manifests", "points": [point_of(path) for path in chosen.bundles]}
    series = [own, *peers]
    chosen.output.with_suffix(".json").write_text(json.dumps(series, indent=2) + "\n")
    draw(series, chosen.output.with_suffix(".png"))
    for name, size, kl, growth in table(series):
        print(f"{name:30} {size:7.1f} MB  KL {kl:.4f}  perplexity {growth:+.2f} %")


def point_of(bundle: Path) -> dict[str, Any]:
    """What a quantized decoder's manifest says of its loss.

    Raises:
        SystemExit: the bundle is no quantized decoder.
    """
    parity = (json.loads((bundle / "manifest.json").read_text())["export"]["parity"] or {}).get("quantized")
    if parity is None:
        raise SystemExit(f"{bundle} is not a bundle of a quantized decoder")
    return {
        "name": bundle.name,
        "size": sum(path.stat().st_size for path in bundle.iterdir()),
        "kl": parity["mean_kl"],
        "perplexity": parity["perplexity_quantized"],
        "perplexity_original": parity["perplexity_original"],
    }


def table(series: list[dict[str, Any]]) -> list[tuple[str, float, float, float]]:
    """By size: engine and name, megabytes, KL in nats, and the growth of perplexity in percent."""
    rows = [
        (
            f"{item['engine']} {point['name']}",
            point["size"] / 1e6,
            point["kl"],
            100 * (point["perplexity"] / point["perplexity_original"] - 1),
        )
        for item in series
        for point in item["points"]
    ]
    return sorted(rows, key=lambda row: row[1])


def draw(series: list[dict[str, Any]], path: Path) -> None:
    """Write the plot: KL, and the growth of perplexity, by size."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(xlabel="MB", ylabel="KL (nats)", yscale="log")
    right.set(xlabel="MB", ylabel="growth of perplexity (%)")
    for item in series:
        points = sorted(item["points"], key=lambda point: point["size"])
        growth = [100 * (point["perplexity"] / point["perplexity_original"] - 1) for point in points]
        _series(left, item["engine"], points, [max(point["kl"], 1e-5) for point in points])
        _series(right, item["engine"], points, growth)
    left.legend()
    figure.savefig(path, dpi=150)


def _series(axes: Axes, engine: str, points: list[dict[str, Any]], values: list[float]) -> None:
    sizes = [point["size"] / 1e6 for point in points]
    axes.plot(sizes, values, "o-" if engine == "Triform" else "s", label=engine)
    for point, size, value in zip(points, sizes, values, strict=True):
        axes.annotate(point["name"], (size, value), fontsize=7, xytext=(3, 3), textcoords="offset points")


if __name__ == "__main__":
    main()
