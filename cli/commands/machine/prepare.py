"""``triform prepare``."""

from __future__ import annotations

from typing import Annotated

import typer

from triform.cli.arguments.common import BundleFolder

HELP = """Prepare a bundle for this machine: it starts sooner then, and takes less memory, but more space on disk.

\b
  triform prepare BUNDLE
  triform prepare BUNDLE --remove

Copies of its graphs go into your cache folder, their weights laid out as this processor reads them, and are used by all
commands and programs of yours from then on. Without them that is done at each start, in memory of its own; from a copy
the weights are mapped, so that several processes share them. After an update of onnxruntime, or of the bundle, prepare
it again.
"""


def run(
    bundle: BundleFolder,
    remove: Annotated[bool, typer.Option("--remove", help="Remove what was prepared for the bundle.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> int:
    """Parse, call, render."""
    import json

    from triform.cli.outputs.tables import megabytes
    from triform.runtime.graphs.preparation import prepare, unprepare

    if remove:
        size = unprepare(bundle)
        print(json.dumps({"removed_bytes": size}) if as_json else f"{bundle}: {megabytes(size)} removed")
        return 0
    done = prepare(bundle)
    if as_json:
        print(json.dumps({"folders": done.folders, "bytes": done.size}))
        return 0
    print(f"{bundle}: prepared for this machine, {megabytes(done.size)} in")
    for folder in done.folders:
        print(folder)
    return 0
