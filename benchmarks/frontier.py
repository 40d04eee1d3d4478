"""Puts bundles of one decoder, and llama.cpp's files of it, on one plot: size against loss, all measured in one run.

    python -m benchmarks.frontier FLOAT-BUNDLE BUNDLE… --gguf FLOAT.gguf --python PEER/bin/python --output frontier

prints a table and writes frontier.json and frontier.png. All are compared with FLOAT-BUNDLE (of `triform export
--quantize none`), on the exporter's evaluation text and on `benchmarks/texts`, the same tokens in the same windows.
PEER is an environment with llama-cpp-python, such as `benchmarks/decode.py prepare` makes; it makes a file of each kind
from FLOAT.gguf, and runs each in a process of its own. The numbers of a float file that was made of a quantized one lie
on the grid of its blocks, which some kinds copy; `benchmarks/off_grid.py` makes one whose numbers do not.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tokenizers import Tokenizer

_HERE = Path(__file__).parent
_EVALUATION = _HERE.parent / "export" / "samples" / "data" / "evaluation.txt"
_KINDS = ("Q3_K_M", "IQ4_XS", "Q4_0", "Q4_1", "Q4_K_M", "Q5_K_M", "Q6_K")
_EVALUATION_TOKENS, _WINDOW, _ROWS = 1024, 512, 64

# Of texts by name, their windows of token ids.
_Windows = dict[str, list[list[int]]]
_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Loss:
    """What a quantized model loses on one text.

    Attributes:
        kl: mean divergence from the float model's predictions, in nats.
        growth: of the perplexity, as a share.
    """

    kl: float
    growth: float


@dataclass(frozen=True)
class Point:
    """A quantized model.

    Attributes:
        engine: that runs it.
        name: of the bundle, or the kind of the file.
        size: in bytes.
        losses: by text; "evaluation" is the exporter's.
    """

    engine: str
    name: str
    size: int
    losses: dict[str, Loss]

    @property
    def others(self) -> Loss:
        """The mean of all texts but the evaluation text."""
        losses = [loss for name, loss in self.losses.items() if name != "evaluation"]
        return Loss(float(np.mean([loss.kl for loss in losses])), float(np.mean([loss.growth for loss in losses])))


def main() -> None:
    """Measure everything, print a table, and write it as JSON and as a plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("original", type=Path)
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--python", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("frontier"))
    chosen = parser.parse_args()
    if (chosen.gguf is None) != (chosen.python is None):
        parser.error("--gguf and --python go together")
    with tempfile.TemporaryDirectory() as scratch:
        points = sorted(_measured(chosen, Path(scratch)), key=lambda point: point.size)
    chosen.output.with_suffix(".json").write_text(json.dumps([asdict(point) for point in points], indent=2) + "\n")
    draw(points, chosen.output.with_suffix(".png"))
    for point in points:
        first, others = point.losses["evaluation"], point.others
        print(
            f"{point.engine + ' ' + point.name:30} {point.size / 1e6:7.1f} MB  evaluation text: KL {first.kl:.4f}, "
            f"perplexity {100 * first.growth:+.2f} %; other texts: KL {others.kl:.4f}, {100 * others.growth:+.2f} %"
        )


def _measured(chosen: argparse.Namespace, scratch: Path) -> Iterator[Point]:
    windows = _windows(chosen.original)
    expected = scratch / "expected"
    expected.mkdir()
    with _Worker(sys.executable, "triform", chosen.original, chosen.threads) as worker:
        for name, index, ids in _each(windows):
            worker.logits(ids, expected / f"{name}.{index}.npy")
    for bundle in chosen.bundles:
        size = sum(path.stat().st_size for path in bundle.iterdir())
        with _Worker(sys.executable, "triform", bundle, chosen.threads) as worker:
            yield Point("Triform", bundle.name, size, _losses(worker, windows, expected))
    for kind in _KINDS if chosen.python is not None else ():
        file = scratch / f"{kind}.gguf"
        with _Worker(chosen.python, "llama", "-", chosen.threads) as worker:
            status = worker.ask({"task": "quantize", "source": str(chosen.gguf), "target": str(file), "kind": kind})
        if status["status"]:
            raise SystemExit(f"llama.cpp cannot make {kind} of {chosen.gguf}")
        with _Worker(chosen.python, "llama-all", file, chosen.threads) as worker:
            yield Point("llama.cpp", kind, file.stat().st_size, _losses(worker, windows, expected))
        file.unlink()


class _Worker:
    """An engine in a process of its own, see `benchmarks/engines.py`."""

    def __init__(self, python: Path | str, engine: str, model: Path | str, threads: int) -> None:
        command = [str(python), str(_HERE / "engines.py"), engine, str(model), str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def ask(self, request: dict[str, Any]) -> Any:
        if self._process.stdin is None or self._process.stdout is None:
            raise ValueError("the worker has no pipes")
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended: {self._process.args}")
        return json.loads(line)

    def logits(self, ids: list[int], path: Path) -> NDArray[np.float32]:
        """Float32 (tokens, vocab_size), which stay in the file."""
        self.ask({"task": "logits", "ids": ids, "path": str(path)})
        array: NDArray[np.float32] = np.load(path, mmap_mode="r")
        return array


def _windows(bundle: Path) -> _Windows:
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    tokenizer.no_truncation()

    def cut(path: Path, most: int | None = None) -> list[list[int]]:
        ids = tokenizer.encode(path.read_text(encoding="utf-8")).ids[:most]
        return [ids[start : start + _WINDOW] for start in range(0, len(ids) - 1, _WINDOW)]

    others = {path.stem: cut(path) for path in sorted((_HERE / "texts").glob("*.txt"))}
    return {"evaluation": cut(_EVALUATION, _EVALUATION_TOKENS), **others}


def _each(windows: _Windows) -> Iterator[tuple[str, int, list[int]]]:
    return ((name, index, ids) for name, pieces in windows.items() for index, ids in enumerate(pieces))


def _losses(worker: _Worker, windows: _Windows, expected: Path) -> dict[str, Loss]:
    tables: dict[str, list[_Array]] = {name: [] for name in windows}
    with tempfile.TemporaryDirectory() as scratch:
        for name, index, ids in _each(windows):
            original = np.load(expected / f"{name}.{index}.npy", mmap_mode="r")
            tables[name].append(differences(original, worker.logits(ids, Path(scratch) / "logits.npy"), ids))
    return {name: loss_of(parts) for name, parts in tables.items()}


def differences(original: NDArray[np.float32], actual: NDArray[np.float32], ids: list[int]) -> _Array:
    """Of each token but the last, whose successor is not known: KL, and the log-likelihoods of the next token.

    Args:
        original: float32 (tokens, vocab_size), logits of the float model.
        actual: of the quantized model, the same shape.
        ids: of the tokens.

    Returns:
        float64 (tokens - 1, 3): KL in nats, log-likelihood by the original, and by the actual logits.
    """
    parts = []
    for start in range(0, len(ids) - 1, _ROWS):
        targets = np.array(ids[start + 1 : start + 1 + _ROWS])
        first, second = (_log_softmax(table[start : start + len(targets)]) for table in (original, actual))
        rows = np.arange(len(targets))
        kl = (np.exp(first) * (first - second)).sum(-1)
        parts.append(np.stack([kl, first[rows, targets], second[rows, targets]], axis=-1))
    return np.concatenate(parts)


def _log_softmax(logits: NDArray[np.float32]) -> _Array:
    table = logits.astype(np.float64)
    table -= table.max(-1, keepdims=True)
    table -= np.log(np.exp(table).sum(-1, keepdims=True))
    return table


def loss_of(parts: Iterable[_Array]) -> Loss:
    """What the windows of a text, of `differences`, say together."""
    kl, original, actual = np.concatenate(list(parts)).mean(0)
    return Loss(float(kl), float(np.expm1(original - actual)))


def draw(points: list[Point], path: Path) -> None:
    """Write the plot: KL, and the growth of perplexity, on the evaluation text by size."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.set(xlabel="MB", ylabel="KL (nats)", yscale="log")
    right.set(xlabel="MB", ylabel="growth of perplexity (%)")
    for engine in dict.fromkeys(point.engine for point in points):
        chosen = [point for point in points if point.engine == engine]
        _series(left, engine, chosen, [max(point.losses["evaluation"].kl, 1e-5) for point in chosen])
        _series(right, engine, chosen, [100 * point.losses["evaluation"].growth for point in chosen])
    left.legend()
    figure.savefig(path, dpi=150)


def _series(axes: Axes, engine: str, points: list[Point], values: list[float]) -> None:
    sizes = [point.size / 1e6 for point in points]
    axes.plot(sizes, values, "o-" if engine == "Triform" else "s", label=engine)
    for point, size, value in zip(points, sizes, values, strict=True):
        axes.annotate(point.name, (size, value), fontsize=7, xytext=(3, 3), textcoords="offset points")


if __name__ == "__main__":
    main()
