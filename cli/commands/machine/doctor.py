"""``triform doctor``."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from triform.runtime.bundle.manifest import Manifest

HELP = """Show what this machine has for running models, and which bundles fit it.

\b
  triform doctor
  triform doctor BUNDLE ANOTHER_BUNDLE
  triform doctor --json

Memory is read for a second to measure how fast it is: to generate a token, a model reads all its weights once.
"""

# What a process needs besides the weights, in bytes: Python, ONNX Runtime, a tokenizer. Measured with small models.
_BESIDES = 120 * 10**6
_GIGA = 1e9


@dataclass(frozen=True)
class Machine:
    """What this machine has.

    Attributes:
        versions: of triform, Python and the packages that run models.
        processor: the processor's name.
        cores: physical cores that a process may use.
        instructions: those that matter here, as Linux spells them.
        memory: bytes of memory; None if unknown.
        available_memory: bytes that are free; None if unknown.
        memory_bandwidth: bytes a second.
        providers: why each execution provider does not start, or None if it does.
        missing_extras: the command that installs each extra that is not installed.
    """

    versions: dict[str, str]
    processor: str
    cores: int
    instructions: list[str]
    memory: int | None
    available_memory: int | None
    memory_bandwidth: float
    providers: dict[str, str | None]
    missing_extras: dict[str, str]


@dataclass(frozen=True)
class Fit:
    """How a bundle suits this machine.

    Attributes:
        bundle: its folder.
        form: see `Manifest`.
        task: see `Manifest`.
        memory: about how many bytes a process needs for it, without the cache of a long text.
        fits: whether so many are available; None if unknown.
        most_tokens_per_second: a bound by the speed of memory, one text at a time; None for encoders.
        problem: why it cannot be opened; the other attributes are None then.
    """

    bundle: str
    form: str | None = None
    task: str | None = None
    memory: int | None = None
    fits: bool | None = None
    most_tokens_per_second: float | None = None
    problem: str | None = None


def run(
    bundles: Annotated[
        Optional[list[Path]], typer.Argument(help="Folders of bundles to judge; TRIFORM_BUNDLE by default.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import default_bundle

    machine, default = _machine(), default_bundle()
    fits = [_fit(folder, machine) for folder in bundles or ([Path(default)] if default else [])]
    if as_json:
        import json

        print(json.dumps(asdict(machine) | {"bundles": [asdict(fit) for fit in fits]}))
    else:
        _print(machine, fits)
    return 1 if any(fit.problem is not None for fit in fits) else 0


def _machine() -> Machine:
    from triform.runtime.extras import missing_extras
    from triform.runtime.graphs.session import provider_problems
    from triform.runtime.machine.memory import available_memory, memory_bandwidth, total_memory
    from triform.runtime.machine.processor import instructions, physical_cores, processor_name

    cores = physical_cores()
    return Machine(
        _versions(), processor_name(), cores, instructions(), total_memory(), available_memory(),
        memory_bandwidth(cores), provider_problems(), missing_extras(),
    )  # fmt: skip


def _versions() -> dict[str, str]:
    from importlib import metadata

    from triform import __version__

    packages = {name: metadata.version(name) for name in ("numpy", "onnxruntime", "tokenizers")}
    return {"triform": __version__, "Python": platform.python_version()} | packages


def _fit(folder: Path, machine: Machine) -> Fit:
    from triform.runtime.bundle.folder import open_bundle
    from triform.runtime.errors import TriformError

    try:
        manifest = open_bundle(folder).manifest
    except TriformError as error:
        return Fit(str(folder), problem=str(error))
    weights = {name: _weights(manifest, name) for name in manifest.graphs}
    needed, available = sum(weights.values()) + _BESIDES, machine.available_memory
    decoder = weights.get("decoder")
    return Fit(
        str(folder), manifest.form, manifest.task, needed, None if available is None else needed <= available,
        machine.memory_bandwidth / decoder if decoder else None,
    )  # fmt: skip


def _weights(manifest: Manifest, graph: str) -> int:
    info = manifest.graphs[graph]
    return sum(manifest.files[name].size for name in (info.file, info.data) if name is not None)


def _print(machine: Machine, fits: list[Fit]) -> None:
    from triform.cli.outputs.tables import rows

    lines = [
        ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("processor", machine.processor),
        ("cores", f"{machine.cores} physical"),
        ("instructions", " ".join(machine.instructions) or "unknown"),
        ("memory", _memory(machine)),
    ]
    lines += [(f"provider {name}", problem or "starts") for name, problem in machine.providers.items()]
    lines += [(f"extra {name}", f"not installed: {command}") for name, command in machine.missing_extras.items()]
    lines += [(f"bundle {fit.bundle}", _verdict(fit)) for fit in fits]
    print(rows(lines))


def _memory(machine: Machine) -> str:
    speed = f"read at {machine.memory_bandwidth / _GIGA:.1f} GB/s"
    if machine.memory is None:
        return f"unknown size, {speed}"
    free = "" if machine.available_memory is None else f", {machine.available_memory / _GIGA:.1f} GB available"
    return f"{machine.memory / _GIGA:.1f} GB{free}, {speed}"


def _verdict(fit: Fit) -> str:
    if fit.problem is not None or fit.memory is None:
        return fit.problem or ""
    fits = {True: "fits", False: "does not fit", None: "may fit"}[fit.fits]
    speed = "" if fit.most_tokens_per_second is None else f", below {fit.most_tokens_per_second:.0f} tokens/s"
    return f"{fit.form}, {fit.task}: {fits}, needs about {fit.memory / _GIGA:.2f} GB{speed}"
