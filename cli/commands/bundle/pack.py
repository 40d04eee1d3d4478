"""``triform pack``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from triform.cli.arguments.completion import complete_bundle

HELP = """Pack bundles, the wheels that run them and an installer into one file, for a device without a network.

\b
  triform pack BUNDLE -o app.tar.gz --wheel dist/triform-0.1.0-py3-none-any.whl
  triform pack BUNDLE ANOTHER -o app.tar.zst --wheel dist/triform-*.whl --platform manylinux_2_28_aarch64 --python 3.11
On the device, with python3 alone:
  tar xf app.tar.gz && sh app/install.sh && app/triform generate app/bundles/BUNDLE "Hello"

pip fetches the wheels for the platform; the checksums of all files are in the pack and checked before it is installed.
"""


def run(
    bundles: Annotated[list[Path], typer.Argument(autocompletion=complete_bundle, help="The bundles' folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write: .tar.gz, .tar.xz or .tar.zst.")],
    wheel: Annotated[Path, typer.Option(help="Triform's own wheel, which `make wheel` makes.")],
    platform: Annotated[
        str, typer.Option(help="The device's platform, as wheels name it; wheels for older systems are accepted too.")
    ] = "manylinux_2_28_x86_64",
    python: Annotated[Optional[str], typer.Option(help="The device's Python; the same as here by default.")] = None,
    extra: Annotated[
        Optional[list[str]],
        typer.Option(help="An extra of triform that the device needs, such as image; may be repeated."),
    ] = None,
    minimal: Annotated[
        bool, typer.Option("--minimal", help="Leave out what a device does without: tests, converters, hub clients.")
    ] = False,
) -> int:
    """Parse, call, render."""
    from triform.cli.outputs.part_file import check_not_read
    from triform.cli.outputs.tables import megabytes
    from triform.runtime.bundle.folder import open_bundle
    from triform.runtime.supply_chain.packing import Pack, write_pack

    version = python or ".".join(map(str, sys.version_info[:2]))
    pack = Pack([open_bundle(bundle) for bundle in bundles], wheel, platform, version, extra or (), minimal)
    for bundle in bundles:
        check_not_read(output, [wheel], bundle)
    print(f"{output}: {megabytes(write_pack(pack, output))}")
    return 0
