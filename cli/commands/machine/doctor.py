"""``triform doctor``."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from triform.cli.arguments.completion import complete_bundle

if TYPE_CHECKING:
    from triform.runtime.bundle.folder import Bundle
    from triform.runtime.bundle.manifest import Manifest

HELP = """Show what this machine has for running models, and which bundles fit it.

\b
  triform doctor
  triform doctor BUNDLE ANOTHER_BUNDLE
  triform doctor BUNDLE --provider webgpu
  triform doctor --json

Of every triform.toml that commands read in this folder it lists what it sets, or what is wrong with it.
Memory is read for a second to measure how fast it is: to generate a token, a model reads all its weights once.
A bundle that may fit is loaded in a process of its own, to see how much memory it takes.
With --provider the bundles' graphs are opened, to see which operators that provider leaves to the CPU.
"""

# What a process needs besides the weights at least, in bytes: Python, ONNX Runtime, a tokenizer.
_BESIDES = 60 * 10**6
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
        providers: why each execution provider does not start or is not there; None if it starts.
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
        memory: how many bytes a process has at most while it loads it, which a text, image or recording adds to; where
            that cannot be measured here, about how many it needs at least.
        measured: whether they were measured.
        fits: whether so many are available; None if unknown.
        most_tokens_per_second: a bound by the speed of memory, one text at a time; None for encoders.
        left_to_cpu: how many operators of each type the provider that was named leaves to the CPU, by graph; None if
            none was named.
        problem: why it cannot be loaded here; the other attributes are None then.
    """

    bundle: str
    form: str | None = None
    task: str | None = None
    memory: int | None = None
    measured: bool = False
    fits: bool | None = None
    most_tokens_per_second: float | None = None
    left_to_cpu: dict[str, dict[str, int]] | None = None
    problem: str | None = None


@dataclass(frozen=True)
class SettingsFound:
    """A file with defaults of options that commands read here.

    Attributes:
        file: its path.
        sets: the options that it sets, such as generate.top-k.
        problem: why commands refuse it; it sets nothing then.
    """

    file: str
    sets: list[str]
    problem: str | None = None


def run(
    bundles: Annotated[
        Optional[list[Path]],
        typer.Argument(autocompletion=complete_bundle, help="Folders of bundles to judge; TRIFORM_BUNDLE by default."),
    ] = None,
    provider: Annotated[
        Optional[str],
        typer.Option(help="An execution provider (cuda, webgpu, …): which operators it leaves to the CPU."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Parse, call, render."""
    from triform.cli.arguments.bundle import default_bundle
    from triform.runtime.errors import refuse_unused

    default = default_bundle()
    folders = bundles or ([Path(default)] if default else [])
    refuse_unused("is for bundles, and none is named", provider=provider is not None and not folders)
    machine = _machine()
    fits = [_fit(folder, machine, provider) for folder in folders]
    settings = _settings()
    if as_json:
        import json

        lists = {"settings": [asdict(file) for file in settings], "bundles": [asdict(fit) for fit in fits]}
        print(json.dumps(asdict(machine) | lists))
    else:
        _print(machine, settings, fits)
    problems = [fit.problem for fit in fits] + [found.problem for found in settings]
    return 1 if any(problem is not None for problem in problems) else 0


def _settings() -> list[SettingsFound]:
    """The files that commands read in this folder, the one that counts most first."""
    from triform.cli.command_table import CONFIGURABLE, load_command
    from triform.cli.configuration.files import settings_files
    from triform.cli.configuration.settings import check_file
    from triform.runtime.errors import InputError

    found = []
    for file in reversed(settings_files()):
        try:
            found.append(SettingsFound(str(file.path), check_file(file.path, CONFIGURABLE, load_command)))
        except InputError as error:
            found.append(SettingsFound(str(file.path), [], str(error)))
    return found


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

    # onnxruntime comes in several packages, and so do its providers.
    runtimes = sorted({found.name for found in metadata.distributions() if found.name.startswith("onnxruntime")})
    packages = {name: metadata.version(name) for name in ("numpy", *runtimes, "tokenizers")}
    return {"triform": __version__, "Python": platform.python_version()} | packages


def _fit(folder: Path, machine: Machine, provider: str | None) -> Fit:
    from triform.cli.commands.machine.loading_memory import Loading, try_loading
    from triform.runtime.bundle.folder import open_bundle
    from triform.runtime.errors import BundleError, OutOfMemoryError

    try:
        bundle = open_bundle(folder)
        left = _left_to_cpu(bundle, provider) if provider else None
    except (BundleError, OutOfMemoryError) as error:
        return Fit(str(folder), problem=str(error))
    manifest = bundle.manifest
    weights = {name: _weights(manifest, name) for name in manifest.graphs}
    least, available = sum(weights.values()) + _BESIDES, machine.available_memory
    # What does not fit for certain is not tried.
    loading = Loading() if available is not None and least > available else try_loading(folder)
    if loading is not None and loading.problem is not None:
        return Fit(str(folder), problem=loading.problem)
    measured = None if loading is None else loading.peak
    needed = least if measured is None else measured
    fits = None if available is None else loading is not None and needed <= available
    decoder = weights.get("decoder")
    return Fit(
        str(folder), manifest.form, manifest.task, needed, measured is not None, fits,
        machine.memory_bandwidth / decoder if decoder else None, left,
    )  # fmt: skip


def _left_to_cpu(bundle: Bundle, provider: str) -> dict[str, dict[str, int]]:
    from triform.runtime.bundle.targets import for_gpu
    from triform.runtime.graphs.session import provider_assignment

    # A provider other than the CPU runs the graphs for GPUs, where a bundle has them.
    graphs = for_gpu(bundle.manifest).graphs
    return {
        name: dict(provider_assignment(bundle.path(info.file), provider).left.most_common())
        for name, info in graphs.items()
    }


def _weights(manifest: Manifest, graph: str) -> int:
    info = manifest.graphs[graph]
    return sum(manifest.files[name].size for name in (info.file, info.data) if name is not None)


def _print(machine: Machine, settings: list[SettingsFound], fits: list[Fit]) -> None:
    from triform.cli.outputs.tables import rows

    lines = [
        ("versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())),
        ("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("processor", machine.processor),
        ("cores", f"{machine.cores} physical"),
        ("instructions", " ".join(machine.instructions) or "unknown"),
        ("memory", _memory(machine)),
    ]
    for name, problem in machine.providers.items():
        lines.append((f"provider {name}", (problem or "starts").removeprefix(f"provider {name} ")))
    lines += [(f"extra {name}", f"not installed: {command}") for name, command in machine.missing_extras.items()]
    lines += [
        (f"settings {file.file}", file.problem or f"sets {', '.join(file.sets) or 'nothing'}") for file in settings
    ]
    for fit in fits:
        lines.append((f"bundle {fit.bundle}", _verdict(fit)))
        lines += [(f"left to the cpu, {graph}", _listed(left)) for graph, left in (fit.left_to_cpu or {}).items()]
    print(rows(lines))


def _listed(left: dict[str, int]) -> str:
    return ", ".join(f"{count} {operator}" for operator, count in left.items()) or "nothing"


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
    needs = (
        f"takes {fit.memory / _GIGA:.2f} GB to load" if fit.measured else f"needs {fit.memory / _GIGA:.2f} GB or more"
    )
    return f"{fit.form}, {fit.task}: {fits}, {needs}{speed}"
